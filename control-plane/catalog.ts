/** The catalog: merges what all sources say into one world, and tells who watches when it changes. */
import { memo } from '../lib/memo.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { atOnce, inSlices } from '../lib/slices.ts';
import { type Watch, WatchValue } from '../lib/watch.ts';
import { keyOf } from './models/references.ts';
import { EMPTY_WORLD, placeOf, WorldState } from './models/world-state.ts';
import type { Problem, Resource, Source, SourceState, World } from './world.ts';

export interface Catalog {
  readonly world: Watch<World>;
  /** Every resource that takes part in the world, in order of kind and key. */
  resources(): readonly Resource[];
  /** The one of `kind namespace/name`. */
  resource(kindAndKey: string): Resource | undefined;
  /** Every source has spoken once; what is published before that is a half-known mesh. */
  readonly ready: Promise<void>;
  /** Watches the sources until the signal aborts. A source that ends or throws leaves its last state in place. */
  run(signal: AbortSignal): Promise<void>;
}

/** `sources` in order of precedence: where two hold a resource of the same kind and name, the first one's counts and the other is a problem. With a clock, large changes are made in slices. */
export function createCatalog(sources: readonly Source[], deps: { readonly log: Log; readonly clock?: Clock }): Catalog {
  const merged = new Merge(sources.map((source) => source.name));
  const world = new WatchValue<World>(EMPTY_WORLD);
  const waiting = new Set(sources.keys());
  let becomeReady = (): void => undefined;
  const ready = new Promise<void>((resolve) => {
    becomeReady = resolve;
  });
  const heard = (index: number): void => {
    if (waiting.delete(index) && waiting.size === 0) becomeReady();
  };
  let merging: Promise<unknown> = Promise.resolve();
  /** A slice at a time, and one source after the other. */
  const merge = (index: number, state: SourceState): Promise<World> | World => {
    if (deps.clock === undefined) return atOnce(merged.set(index, state));
    const { clock } = deps;
    const next = merging.then(() => inSlices(clock, merged.set(index, state)));
    merging = next.catch(() => undefined);
    return next;
  };
  const follow = async (source: Source, index: number, signal: AbortSignal): Promise<void> => {
    try {
      for await (const state of source.watch(signal)) {
        const next = await merge(index, state);
        if (next !== world.current) world.set(next);
        heard(index);
      }
    } catch (error) {
      deps.log.error('A source failed; what it said last stays in place.', { source: source.name, error });
    }
    heard(index);
  };
  if (sources.length === 0) becomeReady();
  return {
    world,
    ready,
    resources: () => merged.resources(),
    resource: (kindAndKey) => merged.resource(kindAndKey),
    run: async (signal) => {
      await Promise.all(sources.map((source, index) => follow(source, index, signal)));
    },
  };
}

/** The world that these states make, each in the order of precedence. For dry runs and tests. */
export function mergeWorld(states: readonly { readonly name: string; readonly state: SourceState }[]): World {
  const merged = new Merge(states.map((entry) => entry.name));
  let world = EMPTY_WORLD;
  for (const [index, entry] of states.entries()) world = atOnce(merged.set(index, entry.state));
  return world;
}

interface Held {
  readonly name: string;
  state: SourceState;
  /** `kind namespace/name` -> the first resource of that name in this source. */
  byKey: Map<string, Resource>;
  /** Later ones of the same name in this source. */
  repeats: readonly Resource[];
}

/** A source's new state; `replaced` when it holds the same names as before. */
interface Taken {
  readonly byKey: Map<string, Resource>;
  readonly repeats: readonly Resource[];
  readonly replaced: ReadonlyMap<string, Resource> | undefined;
}

const NOTHING: SourceState = { resources: [], problems: [] };

/** Precedence among sources, and the difference that one source's new state makes. */
class Merge {
  readonly #held: Held[];
  readonly #state = new WorldState();
  /** What sources hold that an earlier one hides. */
  #hidden: readonly Problem[] = [];

  constructor(names: readonly string[]) {
    this.#held = names.map((name) => ({ name, state: NOTHING, byKey: new Map(), repeats: [] }));
  }

  /** Takes the full state of one source, in small steps; answers the world, the same object when nothing changed. One state at a time. */
  *set(index: number, state: SourceState): Generator<void, World> {
    const held = this.#held[index]!;
    if (state === held.state) return this.#state.world;
    const before = held.byKey;
    const problemsMoved = state.problems !== held.state.problems && (state.problems.length > 0 || held.state.problems.length > 0);
    const taken = this.#inPlace(held, state.resources) ?? this.#anew(state.resources);
    const repeatsMoved =
      taken.repeats.length !== held.repeats.length || taken.repeats.some((resource, at) => resource !== held.repeats[at]);
    held.state = state;
    held.byKey = taken.byKey;
    held.repeats = taken.repeats;
    const { changes, hiddenMoved } = this.#changes(index, before, taken);
    if (taken.replaced === undefined || hiddenMoved || this.#hidden.length > 0) this.#hidden = this.#hiddenOnes();
    const first = this.#state.world === EMPTY_WORLD;
    if (changes.size === 0 && !problemsMoved && !repeatsMoved && !hiddenMoved && !first) return this.#state.world;
    return yield* this.#state.apply(changes, this.#problems());
  }

  resources(): readonly Resource[] {
    const winners = new Map<string, Resource>();
    for (const held of this.#held) for (const [key, resource] of held.byKey) if (!winners.has(key)) winners.set(key, resource);
    return [...winners.keys()].sort().map((key) => winners.get(key)!);
  }

  resource(kindAndKey: string): Resource | undefined {
    for (const { byKey } of this.#held) {
      const found = byKey.get(kindAndKey);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Most states differ from the one before in a resource or two at the same place: then only those are looked at. */
  #inPlace(held: Held, next: readonly Resource[]): Taken | undefined {
    const old = held.state.resources;
    if (old.length !== next.length || held.repeats.length > 0) return undefined;
    const replaced = new Map<string, Resource>();
    for (let at = 0; at < next.length; at++) {
      if (next[at] === old[at]) continue;
      const key = nameOf(next[at]!);
      if (key !== nameOf(old[at]!)) return undefined;
      replaced.set(key, next[at]!);
    }
    for (const [key, resource] of replaced) held.byKey.set(key, resource);
    return { byKey: held.byKey, repeats: held.repeats, replaced };
  }

  #anew(resources: readonly Resource[]): Taken {
    const byKey = new Map<string, Resource>();
    const repeats: Resource[] = [];
    for (const resource of resources) {
      const key = nameOf(resource);
      if (byKey.has(key)) repeats.push(resource);
      else byKey.set(key, resource);
    }
    return { byKey, repeats, replaced: undefined };
  }

  /** What changes in the world, and whether something did that another source's resource of the same name hides. */
  #changes(index: number, before: ReadonlyMap<string, Resource>, taken: Taken) {
    const changes = new Map<string, Resource | undefined>();
    let hiddenMoved = false;
    const hidden = (key: string): boolean => {
      const found = this.#held.slice(0, index).some((held) => held.byKey.has(key));
      if (found) hiddenMoved = true;
      return found;
    };
    if (taken.replaced !== undefined) {
      for (const [key, resource] of taken.replaced) if (!hidden(key)) changes.set(key, resource);
      return { changes, hiddenMoved };
    }
    for (const [key, resource] of taken.byKey) if (before.get(key) !== resource && !hidden(key)) changes.set(key, resource);
    for (const key of before.keys()) {
      if (taken.byKey.has(key) || hidden(key)) continue;
      changes.set(
        key,
        this.#held
          .slice(index + 1)
          .find((held) => held.byKey.has(key))
          ?.byKey.get(key),
      );
    }
    return { changes, hiddenMoved };
  }

  #problems(): Problem[] {
    const problems: Problem[] = [];
    for (const held of this.#held) {
      problems.push(...held.state.problems);
      for (const repeat of held.repeats) problems.push(repeated(repeat, held.byKey.get(nameOf(repeat))!));
    }
    return [...problems, ...this.#hidden];
  }

  /** One for each resource of which an earlier source has another of the same name. */
  #hiddenOnes(): Problem[] {
    const problems: Problem[] = [];
    const filled = this.#held.filter((held) => held.byKey.size > 0);
    for (const [at, { byKey }] of filled.entries()) {
      if (at === 0) continue;
      const earlier = filled.slice(0, at);
      for (const [key, resource] of byKey) {
        const owner = earlier.find((held) => held.byKey.has(key))?.byKey.get(key);
        if (owner !== undefined) problems.push(repeated(resource, owner));
      }
    }
    return problems;
  }
}

/** Of all merges: each dry run is one of its own, over the same resources. */
const names = memo<Resource, string>();

/** `Service default/reviews`. */
function nameOf(resource: Resource): string {
  let name = names.get(resource);
  if (name === undefined) {
    name = `${resource.kind} ${keyOf(resource)}`;
    names.set(resource, name);
  }
  return name;
}

function repeated(resource: Resource, owner: Resource): Problem {
  return {
    origin: resource.origin,
    resource: nameOf(resource),
    field: 'metadata.name',
    message: `must be unique, and ${placeOf(owner)} has a ${resource.kind} of the same name; that one counts, the one at ${placeOf(resource)} is left out`,
  };
}
