/** Resources from a file that is watched: what moves into its place is read whole, a bad file changes nothing (core.v3.PathConfigSource). */
import { readFile, stat } from 'node:fs/promises';
import { watch } from 'node:fs';
import { dirname } from 'node:path';
import { NO_FIELD, parseResourceFile } from '../xds/resources/resource-file.ts';
import { readData, resolveDecoded } from './data-files.ts';
import { updateStats } from './update-stats.ts';
import { isUnknownField } from '../xds/resources/rules.ts';
import type { Parts } from './assemble.ts';
import type { FSWatcher } from 'node:fs';
import type { Decoded } from '../xds/resources/index.ts';

export interface FileWatch {
  close(): void;
}

type FileKind = 'listeners' | 'clusters' | 'secrets';

const WIRE_KIND = { listeners: 'listener', clusters: 'cluster', secrets: 'secret' } as const;
/** Several events of one change are read once. */
const SETTLE_MS = 50;
/** A directory on a network disk tells no events; a look now and then finds what changed all the same. */
const LOOK_MS = 5_000;
const WARNINGS_TOLD_MAX = 20;
const FILE_BYTES_MAX = 64 * 1024 * 1024;

/** Reads the file and goes on watching its directory. A file that is not there or not good is told and waited for. */
export async function watchFiles(
  kind: FileKind,
  source: { readonly path: string; readonly watchedDirectory?: string },
  parts: Parts,
): Promise<FileWatch> {
  const { clock, log, runtime, store, awaited, status } = parts;
  const { path } = source;
  const counters = updateStats(parts.registry).of(kind);
  let lastText: string | undefined;
  let names = new Set<string>();
  let closed = false;
  let cancelSettle: (() => void) | undefined;
  let reading: Promise<void> = Promise.resolve();

  const load = async (): Promise<void> => {
    const text = await readText(path);
    if (closed || text === lastText) return;
    lastText = text;
    counters.attempt.inc();
    const { problems, unreadable } = await take(text);
    if (problems.length === 0) {
      counters.success.inc();
      counters.time.set(clock.wallMs());
    } else {
      (unreadable ? counters.failure : counters.rejected).inc();
      for (const problem of problems)
        log.error('A configuration file was not taken whole; the last good resources stay.', { file: path, problem });
    }
    if (awaited.delete(kind)) status.check();
  };

  const take = async (text: string): Promise<{ problems: string[]; unreadable: boolean }> => {
    const file = parseResourceFile(text, {
      format: path.endsWith('.json') ? 'json' : 'yaml',
      file: path,
      kind: WIRE_KIND[kind],
      rejectUnknown: parts.options.rejectUnknownDynamicFields,
    });
    for (const warning of file.warnings.slice(0, WARNINGS_TOLD_MAX)) log.warning('A part of a configuration file is ignored.', { warning });
    updateStats(parts.registry).unknownFields.add(file.resources.filter(({ warnings }) => warnings.some(isUnknownField)).length);
    const problems = file.errors.map((error) => error.message);
    const seen = new Set<string>();
    for (const resource of file.resources) {
      try {
        const value = resolveDecoded(resource, readData);
        parts.check({ ...resource, resource: value } as Decoded);
        store.put(kind, {
          name: resource.name,
          value: value as never,
          version: file.version,
          fixed: false,
          updatedMs: clock.wallMs(),
          dump: resource.dump,
        });
        seen.add(resource.name);
      } catch (error) {
        problems.push(error instanceof Error ? error.message : String(error));
      }
    }
    // A resource with a mistake is not one that is gone.
    if (problems.length === 0) for (const name of names) if (!seen.has(name)) store.remove(kind, name);
    names = problems.length === 0 ? seen : new Set([...names, ...seen]);
    store.versions[kind] = file.version;
    for (const { message } of await runtime.apply()) problems.push(message);
    return {
      problems,
      // A file that can be read and is not wanted counts as rejected, as in Envoy.
      unreadable: file.errors.some((error) => error.problem !== NO_FIELD),
    };
  };

  const trigger = (): void => {
    if (closed) return;
    cancelSettle ??= clock.after(SETTLE_MS, () => {
      cancelSettle = undefined;
      reading = reading.then(load).catch((error: unknown) => {
        counters.failure.inc();
        log.error('A configuration file could not be read; what was read before stays.', { file: path, error });
      });
    });
  };

  await load().catch((error: unknown) => log.error('A configuration file could not be read; it is waited for.', { file: path, error }));
  const watcher = watchDirectory(source.watchedDirectory ?? dirname(path), trigger, parts);
  let cancelLook = (): void => undefined;
  const look = (): void => {
    trigger();
    cancelLook = clock.after(LOOK_MS, look);
  };
  cancelLook = clock.after(LOOK_MS, look);
  return {
    close: () => {
      closed = true;
      watcher?.close();
      cancelSettle?.();
      cancelLook();
    },
  };
}

async function readText(path: string): Promise<string> {
  const { size } = await stat(path);
  if (size > FILE_BYTES_MAX) throw new Error(`${path} has ${size} bytes, at most ${FILE_BYTES_MAX} are read`);
  return readFile(path, 'utf8');
}

function watchDirectory(directory: string, onChange: () => void, { log }: Parts): FSWatcher | undefined {
  try {
    const watcher = watch(directory, { persistent: false }, onChange);
    watcher.on('error', (error) =>
      log.warning('A directory can no longer be watched; it is looked at now and then.', { directory, error }),
    );
    return watcher;
  } catch (error) {
    log.warning('A directory cannot be watched; it is looked at now and then.', { directory, error });
    return undefined;
  }
}
