/** The source of files: YAML and JSON of files and directories, watched; what a bad edit breaks keeps its last good version. */
import { createHash } from 'node:crypto';
import { type FSWatcher, watch as watchPath } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { inSlices } from '../../lib/slices.ts';
import { readResources } from '../kinds/parse.ts';
import type { Origin, Problem, Resource, Source, SourceState } from '../world.ts';
import { createPushedSource } from './state.ts';

const FILE_BYTES_MAX = 10 * 1024 * 1024;
const FILES_MAX = 10_000;
/** Editors write in several steps; this much quiet makes one change of them. */
const QUIET_MS = 20;
/** Watching can miss things (network file systems, a directory made anew): everything is looked at again this often. */
const SWEEP_MS = 10_000;

export interface FilesDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly quietMs?: number;
  readonly sweepMs?: number;
  /** Injected by tests. */
  readonly files?: FileAccess;
}

/** What the source needs of a file system. Watching is a hint only: contents are compared by hash. */
export interface FileAccess {
  /** Paths of the files that a file or directory stands for, sorted. Throws when it is not there. */
  list(path: string): Promise<readonly string[]>;
  /** Throws when it is not there, or larger than `bytesMax`. */
  read(path: string, bytesMax: number): Promise<Uint8Array>;
  /** Calls `changed` when something in `directory` may have changed. Throws when it cannot be watched. The answer stops it. */
  watch(directory: string, changed: () => void): () => void;
}

interface HeldFile {
  readonly hash: string;
  /** Resources of the newest version that had no errors, or of the first version as far as it was good. */
  readonly resources: readonly Resource[];
  readonly whole: boolean;
  readonly problems: readonly Problem[];
}

/**
 * Reads files, and of directories the `.yaml`, `.yml` and `.json` files in them (not those of directories inside).
 * Never throws: what cannot be read is a problem. The first state is the full one.
 */
export function createFilesSource(paths: readonly string[], deps: FilesDeps): Source {
  return {
    name: 'files',
    async *watch(signal) {
      const reader = new Reader(paths, deps.files ?? diskFiles, deps.clock);
      const output = createPushedSource('files', await reader.scan());
      let cancel = (): void => undefined;
      let scanning: Promise<void> | undefined;
      let again = false;
      const scan = (): void => {
        cancel();
        if (signal.aborted) return;
        cancel = deps.clock.after(deps.sweepMs ?? SWEEP_MS, scan);
        if (scanning !== undefined) {
          again = true;
          return;
        }
        scanning = (async () => {
          do {
            again = false;
            const before = reader.state;
            const state = await reader.scan();
            if (state !== before && !signal.aborted) output.set(state);
          } while (again && !signal.aborted);
          scanning = undefined;
        })();
      };
      const soon = (): void => {
        cancel();
        if (!signal.aborted) cancel = deps.clock.after(deps.quietMs ?? QUIET_MS, scan);
      };
      const watching = new Watching(deps, soon);
      const release = (): void => {
        cancel();
        watching.close();
      };
      signal.addEventListener('abort', release, { once: true });
      try {
        watching.open(reader.directories);
        // A change between the first look and the watch would be told by nobody.
        scan();
        for await (const state of output.watch(signal)) {
          watching.open(reader.directories);
          yield state;
        }
      } finally {
        signal.removeEventListener('abort', release);
        release();
        await scanning;
      }
    },
  };
}

/** Reads everything and keeps what did not change, so that unchanged resources stay the same objects. */
class Reader {
  readonly #paths: readonly string[];
  readonly #files: FileAccess;
  readonly #clock: Clock;
  #held = new Map<string, HeldFile>();
  #failures: readonly Problem[] = [];
  state: SourceState = { resources: [], problems: [] };
  directories: ReadonlySet<string> = new Set();

  constructor(paths: readonly string[], files: FileAccess, clock: Clock) {
    this.#paths = paths;
    this.#files = files;
    this.#clock = clock;
  }

  /** The same state object when nothing changed. */
  async scan(): Promise<SourceState> {
    const failures: Problem[] = [];
    const directories = new Set<string>();
    const paths = new Set<string>();
    for (const path of this.#paths) {
      try {
        const found = await this.#files.list(path);
        for (const file of found) paths.add(file);
        directories.add(found.length === 1 && found[0] === path ? dirname(path) : path);
      } catch (error) {
        directories.add(dirname(path));
        failures.push(unreadable(path, error));
      }
    }
    if (paths.size > FILES_MAX)
      failures.push({
        origin: { source: 'files' },
        resource: '',
        field: '',
        message: `must be at most ${FILES_MAX} files, received ${paths.size}; the rest is left out`,
      });
    const held = new Map<string, HeldFile>();
    for (const path of [...paths].slice(0, FILES_MAX)) {
      const file = await this.#one(path, failures);
      if (file !== undefined) held.set(path, file);
    }
    this.directories = directories;
    const same =
      held.size === this.#held.size &&
      [...held].every(([path, file]) => this.#held.get(path) === file) &&
      JSON.stringify(failures) === JSON.stringify(this.#failures);
    this.#held = held;
    this.#failures = failures;
    if (same) return this.state;
    const files = [...held.values()];
    this.state = { resources: files.flatMap((file) => file.resources), problems: [...failures, ...files.flatMap((file) => file.problems)] };
    return this.state;
  }

  async #one(path: string, failures: Problem[]): Promise<HeldFile | undefined> {
    const before = this.#held.get(path);
    let bytes: Uint8Array;
    try {
      bytes = await this.#files.read(path, FILE_BYTES_MAX);
    } catch (error) {
      // Gone between listing and reading is gone; anything else keeps what was read before.
      if (isMissing(error)) return undefined;
      failures.push(unreadable(path, error));
      return before;
    }
    const hash = createHash('sha256').update(bytes).digest('base64');
    return before?.hash === hash ? before : inSlices(this.#clock, parsed(path, hash, bytes, before));
  }
}

function* parsed(path: string, hash: string, bytes: Uint8Array, before: HeldFile | undefined): Generator<void, HeldFile> {
  const origin: Origin = { source: 'files', file: path };
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    const problem: Problem = { origin, resource: '', field: '', message: 'must be UTF-8 text' };
    return { hash, resources: before?.resources ?? [], whole: before?.whole ?? false, problems: [problem] };
  }
  const result = yield* readResources(text, origin);
  const bad = result.problems.some((problem) => problem.severity !== 'warning');
  // A file is one change: half of an edit could send requests to what its other half was to make.
  if (bad && before?.whole === true) return { hash, resources: before.resources, whole: true, problems: result.problems };
  return { hash, resources: yield* reused(result.resources, before?.resources ?? []), whole: !bad, problems: result.problems };
}

/** Resources that are the same to the letter and line keep their identity: the catalog skips them. */
function* reused(next: readonly Resource[], before: readonly Resource[]): Generator<void, readonly Resource[]> {
  if (before.length === 0) return next;
  const known = new Map<string, Resource>();
  for (const resource of before) {
    known.set(JSON.stringify(resource), resource);
    yield;
  }
  const kept: Resource[] = [];
  for (const resource of next) {
    kept.push(known.get(JSON.stringify(resource)) ?? resource);
    yield;
  }
  return kept;
}

/** One watch per directory; a directory that cannot be watched is looked at by the sweep alone. */
class Watching {
  readonly #open = new Map<string, () => void>();
  readonly #files: FileAccess;
  readonly #log: Log;
  readonly #changed: () => void;

  constructor(deps: FilesDeps, changed: () => void) {
    this.#files = deps.files ?? diskFiles;
    this.#log = deps.log;
    this.#changed = changed;
  }

  open(directories: ReadonlySet<string>): void {
    for (const [directory, stop] of this.#open) {
      if (directories.has(directory)) continue;
      stop();
      this.#open.delete(directory);
    }
    for (const directory of directories) {
      if (this.#open.has(directory)) continue;
      try {
        this.#open.set(directory, this.#files.watch(directory, this.#changed));
      } catch (error) {
        this.#log.warning('A directory cannot be watched; changes in it are seen by the sweep.', { directory, error });
      }
    }
  }

  close(): void {
    for (const stop of this.#open.values()) stop();
    this.#open.clear();
  }
}

/** The machine's own files. Symbolic links are followed, so a ConfigMap's `..data` swap shows as changed contents. */
export const diskFiles: FileAccess = {
  async list(path) {
    const info = await stat(path);
    if (!info.isDirectory()) return [path];
    const names = await readdir(path);
    const wanted = names.filter((name) => /\.(?:ya?ml|json)$/i.test(name) && !name.startsWith('.')).sort();
    const found: string[] = [];
    for (const name of wanted) {
      const file = join(path, name);
      const target = await stat(file).catch(() => undefined);
      if (target?.isFile() === true) found.push(file);
    }
    return found;
  },
  async read(path, bytesMax) {
    const info = await stat(path);
    if (info.size > bytesMax) throw new Error(`must be at most ${bytesMax} bytes, received ${info.size}`);
    return readFile(path);
  },
  watch(directory, changed) {
    const watcher: FSWatcher = watchPath(directory, { persistent: false }, changed);
    // A directory that is removed ends its watch; the sweep finds it when it is back.
    watcher.on('error', () => {
      watcher.close();
      changed();
    });
    return () => watcher.close();
  },
};

function unreadable(path: string, error: unknown): Problem {
  const reason = isMissing(error) ? 'it does not exist' : ((error as { message?: unknown } | null)?.message ?? error);
  return {
    origin: { source: 'files', file: path },
    resource: '',
    field: '',
    message: `${basename(path)} cannot be read: ${String(reason)}`,
  };
}

function isMissing(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
