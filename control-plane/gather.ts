/** The first half of a control plane: sources, and the world that is merged out of them, with who is connected and how far each change has come. */
import type { Clock } from '../lib/clock.ts';
import type { DescriptorRoom } from '../lib/descriptors.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import type { Watch } from '../lib/watch.ts';
import { createCatalog } from './catalog.ts';
import type { Catalog } from './catalog.ts';
import { createChanges } from './changes.ts';
import type { Changes } from './changes.ts';
import type { ControlPlaneMetrics } from './metrics.ts';
import type { ControlPlaneOptions } from './options.ts';
import { createProxies } from './proxies.ts';
import type { Proxies } from './proxies.ts';
import type { Publisher } from './publish.ts';
import { createSources } from './sources/index.ts';
import type { Sources } from './sources/index.ts';
import type { Store } from './store/store.ts';
import type { Spans } from './tracing.ts';
import type { Problem, World } from './world.ts';

/** What every part is given. */
export interface Base {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
  readonly spans: Spans;
  readonly store: Store;
  readonly metrics: ControlPlaneMetrics;
  readonly startedAtMs: number;
  /** Undefined where this is not the process's main work, and where the system does not tell. */
  readonly descriptors: DescriptorRoom | undefined;
}

/** Sources and the world that is merged out of them; who is connected, and how far each change has come. */
export interface Known extends Sources {
  readonly catalog: Catalog;
  readonly proxies: Proxies;
  readonly changes: Changes;
  /** Set once there is a publisher: changes are counted by its rounds. */
  readonly late: { publisher?: Publisher };
}

/** Things to take down, last in first out. */
export class Closers {
  readonly #closers: (() => void | Promise<void>)[] = [];
  #closing: Promise<void> | undefined;

  add(close: () => void | Promise<void>): void {
    this.#closers.unshift(close);
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      for (const close of this.#closers) await close();
    })();
    return this.#closing;
  }
}

/** Resolves when every source has spoken once: what is published before that would be a half-known mesh. */
export async function gather(options: ControlPlaneOptions, base: Base, closers: Closers): Promise<Known> {
  const { clock, log, metrics } = base;
  const late: Known['late'] = {};
  const proxies: Proxies = createProxies({ clock, progressed: () => changes.progressed(), converged: (ms) => metrics.converged(ms) });
  const changes: Changes = createChanges({ clock, progressOf: (id) => proxies.progressOf(id) });
  const noting = (source: string) => (names: readonly string[]) => {
    const id = changes.begin(source, names);
    return { id, taken: () => changes.included(id, late.publisher?.current ?? 1) };
  };
  const { byName, made } = createSources({ ...base, files: options.files, noting });
  for (const { close } of made) if (close !== undefined) closers.add(close);
  const catalog = createCatalog(
    made.map(({ source }) => source),
    { log, clock },
  );
  const running = new AbortController();
  const followed = catalog.run(running.signal);
  closers.add(async () => {
    running.abort();
    await followed;
  });
  for (const { world } of made) if (world !== undefined) closers.add(catalog.world.subscribe(world));
  await catalog.ready;
  closers.add(watchProblems(catalog.world, log));
  const measure = (world: World): void => {
    metrics.problems(world.problems.length);
    metrics.services(world.services.size);
    metrics.leases(byName.registrations.list().length);
  };
  measure(catalog.world.current);
  closers.add(catalog.world.subscribe(measure));
  return { ...byName, catalog, proxies, changes, late };
}

/** Each problem is written to the log when it appears, not with every world that still has it. */
function watchProblems(world: Watch<World>, log: Log): () => void {
  let known = new Set<string>();
  const tell = ({ problems }: World): void => {
    const now = new Map(problems.map((problem) => [lineOf(problem), problem]));
    for (const [line, problem] of now) if (!known.has(line)) log[problem.severity === 'warning' ? 'info' : 'warning'](line);
    known = new Set(now.keys());
  };
  tell(world.current);
  return world.subscribe(tell);
}

function lineOf({ origin, resource, field, message }: Problem): string {
  const place = origin.file === undefined ? origin.source : `${origin.file}:${origin.line ?? 1}:${origin.column ?? 1}`;
  return `${place}: ${[resource, field].filter((part) => part !== '').join(' ')}: ${message}`;
}
