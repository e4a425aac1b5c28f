import { mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ManualClock, systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import type { Source, SourceState } from '../world.ts';
import { createFilesSource, type FileAccess } from './files.ts';

const service = (name: string, port = 80): string =>
  `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { ports: [{ port: ${port} }] } }\n`;
const namesOf = (state: SourceState): string[] => state.resources.map((resource) => resource.metadata.name);
const portsOf = (state: SourceState): unknown[] =>
  state.resources.map((resource) => (resource.spec['ports'] as { port: number }[])[0]?.port);

/** Follows a source; `until` waits for a state that fits, however many come before it. */
class Follower {
  readonly #stop = new AbortController();
  readonly #states: AsyncIterator<SourceState>;
  current: SourceState | undefined;

  constructor(source: Source) {
    this.#states = source.watch(this.#stop.signal)[Symbol.asyncIterator]();
  }

  async next(): Promise<SourceState> {
    const result = await this.#states.next();
    if (result.done === true) throw new Error('the source ended');
    this.current = result.value;
    return result.value;
  }

  async until(fits: (state: SourceState) => boolean): Promise<SourceState> {
    for (;;) {
      const state = await this.next();
      if (fits(state)) return state;
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#states.next();
  }
}

describe('on disk', () => {
  let directory = '';
  let follower: Follower | undefined;
  const at = (name: string): string => join(directory, name);
  const follow = (...paths: string[]): Follower => {
    follower = new Follower(createFilesSource(paths, { clock: systemClock(), log: silentLog }));
    return follower;
  };
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'meshwork-files-'));
  });
  afterEach(async () => {
    await follower?.close();
    follower = undefined;
    await rm(directory, { recursive: true, force: true });
  });

  test('a directory’s YAML and JSON files are read, others are not', async () => {
    await writeFile(at('b.yml'), service('b'));
    await writeFile(at('a.yaml'), service('a'));
    await writeFile(at('c.json'), '{ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "c" }, "spec": {} }');
    await writeFile(at('notes.txt'), 'not: [yaml');
    await mkdir(at('inside.yaml'));

    const state = await follow(directory).next();

    expect(namesOf(state)).toEqual(['a', 'b', 'c']);
    expect(state.problems).toEqual([]);
    expect(state.resources[0]?.origin).toEqual({ source: 'files', file: at('a.yaml'), line: 1, column: 1 });
  });

  test('an edit, a new file and a removed file are seen', async () => {
    await writeFile(at('a.yaml'), service('a', 80));
    const watching = follow(directory);
    await watching.next();

    await writeFile(at('a.yaml'), service('a', 81));
    await watching.until((state) => portsOf(state)[0] === 81);
    await writeFile(at('b.yaml'), service('b'));
    await watching.until((state) => namesOf(state).length === 2);
    await unlink(at('a.yaml'));
    const last = await watching.until((state) => namesOf(state).length === 1);

    expect(namesOf(last)).toEqual(['b']);
  });

  test('an editor that writes beside and renames over is seen, for a file that was named by itself too', async () => {
    await writeFile(at('a.yaml'), service('a', 80));
    const watching = follow(at('a.yaml'));
    await watching.next();

    await writeFile(at('.a.yaml.swp'), service('a', 81));
    await rename(at('.a.yaml.swp'), at('a.yaml'));

    expect(portsOf(await watching.until((state) => portsOf(state)[0] === 81))).toEqual([81]);
  });

  test('a ConfigMap’s swap of its ..data link is one change of all files', async () => {
    await mkdir(at('..v1'));
    await mkdir(at('..v2'));
    for (const [version, port] of [
      ['..v1', 80],
      ['..v2', 81],
    ] as const)
      for (const name of ['a', 'b']) await writeFile(join(at(version), `${name}.yaml`), service(name, port));
    await symlink('..v1', at('..data'));
    for (const name of ['a', 'b']) await symlink(`..data/${name}.yaml`, at(`${name}.yaml`));
    const watching = follow(directory);
    expect(portsOf(await watching.next())).toEqual([80, 80]);

    await symlink('..v2', at('..data_tmp'));
    await rename(at('..data_tmp'), at('..data'));

    expect(portsOf(await watching.next())).toEqual([81, 81]);
  });

  test('a bad edit keeps the last good version of the whole file and says where it is bad; a good one ends that', async () => {
    await writeFile(at('a.yaml'), service('a', 80) + '---\n' + service('b', 80));
    const watching = follow(directory);
    const [first] = (await watching.next()).resources;

    await writeFile(at('a.yaml'), service('a', 81) + '---\n' + service('b', 99_999));
    const bad = await watching.until((state) => state.problems.length > 0);

    expect(portsOf(bad)).toEqual([80, 80]);
    expect(bad.resources[0]).toBe(first);
    expect(bad.problems[0]).toMatchObject({
      origin: { file: at('a.yaml'), line: 3 },
      resource: 'Service default/b',
      field: 'spec.ports[0].port',
    });

    await writeFile(at('a.yaml'), service('a', 82));
    const good = await watching.until((state) => state.problems.length === 0);
    expect(portsOf(good)).toEqual([82]);
  });

  test('of a file that was never good, the good documents count', async () => {
    await writeFile(at('a.yaml'), service('a') + '---\n' + service('b', 0));

    const state = await follow(directory).next();

    expect(namesOf(state)).toEqual(['a']);
    expect(state.problems).toHaveLength(1);
  });

  test('what is not there is a problem, and no longer one when it comes', async () => {
    const watching = follow(at('later.yaml'));
    const missing = await watching.next();
    expect(missing.problems[0]?.message).toBe('later.yaml cannot be read: it does not exist');

    await writeFile(at('later.yaml'), service('a'));

    const there = await watching.until((state) => state.problems.length === 0);
    expect(namesOf(there)).toEqual(['a']);
  });

  test('bytes that are no text are a problem', async () => {
    await writeFile(at('a.yaml'), Buffer.from([0x61, 0xff, 0xfe]));

    expect((await follow(directory).next()).problems[0]?.message).toBe('must be UTF-8 text');
  });
});

describe('with an injected file system', () => {
  class MemoryFiles implements FileAccess {
    readonly contents = new Map<string, string | Error>();
    readonly watched = new Map<string, () => void>();
    reads = 0;
    unwatchable = false;

    list(path: string): Promise<readonly string[]> {
      return Promise.resolve([...this.contents.keys()].filter((name) => name === path || name.startsWith(`${path}/`)).sort());
    }

    read(path: string): Promise<Uint8Array> {
      this.reads++;
      const content = this.contents.get(path);
      if (content === undefined) return Promise.reject(Object.assign(new Error('gone'), { code: 'ENOENT' }));
      return content instanceof Error ? Promise.reject(content) : Promise.resolve(Buffer.from(content));
    }

    watch(directory: string, changed: () => void): () => void {
      if (this.unwatchable) throw new Error('no watches left');
      this.watched.set(directory, changed);
      return () => this.watched.delete(directory);
    }
  }

  const setUp = (files: MemoryFiles) => {
    const clock = new ManualClock();
    const follower = new Follower(createFilesSource(['/d'], { clock, log: silentLog, files, quietMs: 20, sweepMs: 1_000 }));
    return { clock, follower };
  };
  /** Lets promises that are under way finish: the injected files answer at once. */
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
  };

  test('events in a row make one look, 20 ms after the last', async () => {
    const files = new MemoryFiles();
    files.contents.set('/d/a.yaml', service('a', 80));
    const { clock, follower } = setUp(files);
    await follower.next();
    await settle();
    const readsBefore = files.reads;

    files.contents.set('/d/a.yaml', service('a', 81));
    for (let event = 0; event < 10; event++) {
      files.watched.get('/d')?.();
      clock.advance(10);
    }
    expect(files.reads).toBe(readsBefore);
    clock.advance(20);

    expect(portsOf(await follower.next())).toEqual([81]);
    expect(files.reads).toBe(readsBefore + 1);
    await follower.close();
    expect(clock.pending).toBe(0);
    expect(files.watched.size).toBe(0);
  });

  test('a directory that cannot be watched is looked at by the sweep', async () => {
    const files = new MemoryFiles();
    files.unwatchable = true;
    files.contents.set('/d/a.yaml', service('a', 80));
    const { clock, follower } = setUp(files);
    await follower.next();
    await settle();

    files.contents.set('/d/a.yaml', service('a', 81));
    clock.advance(1_000);

    expect(portsOf(await follower.next())).toEqual([81]);
    await follower.close();
  });

  test('a file that cannot be read for a moment keeps what it held', async () => {
    const files = new MemoryFiles();
    files.contents.set('/d/a.yaml', service('a', 80));
    const { clock, follower } = setUp(files);
    await follower.next();
    await settle();

    files.contents.set('/d/a.yaml', new Error('input/output error'));
    clock.advance(1_000);
    const state = await follower.next();

    expect(namesOf(state)).toEqual(['a']);
    expect(state.problems[0]?.message).toBe('a.yaml cannot be read: input/output error');
    await follower.close();
  });
});
