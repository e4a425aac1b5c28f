/** Envoy's way to name statistics: a scope such as `cluster.reviews` whose tags become Prometheus labels. */
import { BlockType } from './metrics-block.ts';
import type { Block } from './metrics-block.ts';
import type { Counter, Gauge, Histogram, Labels, MetricKind, Registry, Series } from './metrics.ts';

/** Names are relative: `upstream_rq_total` is `cluster.reviews.upstream_rq_total` and `envoy_cluster_upstream_rq_total{envoy_cluster_name="reviews"}`. */
export interface Scope {
  counter(name: string, tags?: Labels, dotted?: string): Counter;
  gauge(name: string, tags?: Labels, dotted?: string): Gauge;
  histogram(name: string, tags?: Labels, dotted?: string): Histogram;
  /** Lets go of every series made here: they expire once idle. Counters keep their values if the scope is made again before that. */
  release(): void;
}

/** A scope whose series of a type are there from the start. */
export interface BlockScope extends Scope {
  /** The series at a place of the type: one read of an array once it is bound. */
  at(index: number): Counter | Gauge | Histogram;
  /** Writes without making a handle: for what is written seldom. */
  set(index: number, value: number): void;
  add(index: number, amount: number): void;
}

/**
 * Makes a scope. `kind` is the first word (`cluster`, `http`, `listener`), `dotted` the whole prefix of the dotted names, `tags` the labels of all series.
 * A name with dots (`circuit_breakers.default.rq_open`) keeps them in the dotted name and has underscores in Prometheus. When a tag is taken out of
 * the middle of a name, give the dotted tail apart: `counter('upstream_rq_xx', { envoy_response_code_class: '2' }, 'upstream_rq_2xx')`.
 */
export function envoyScope(registry: Registry, kind: string, dotted: string, tags: Labels): Scope {
  return new EnvoyScope(registry, kind, dotted, tags, undefined);
}

/** The same with all series of a type, which are there at once, as 0, and cost next to nothing until they are bound. */
export function blockScope(registry: Registry, kind: string, dotted: string, tags: Labels, type: BlockType): BlockScope {
  return new EnvoyScope(registry, kind, dotted, tags, type);
}

/**
 * The series that every scope of a kind has from its start, by kind of metric and relative name. Numbers are held for the first `early` ones
 * at once, for the others from the first write on; default all.
 */
export function scopeType(kind: string, series: readonly (readonly [MetricKind, string])[], early?: number): BlockType {
  return new BlockType(
    series.map(([metric, name]) => ({ kind: metric, name: prometheusName(kind, name), tail: name })),
    early,
  );
}

class EnvoyScope implements BlockScope {
  readonly #registry: Registry;
  readonly #kind: string;
  readonly #dotted: string;
  readonly #tags: Labels;
  readonly #type: BlockType | undefined;
  readonly #block: Block | undefined;
  #made: Set<Series> | undefined = undefined;

  constructor(registry: Registry, kind: string, dotted: string, tags: Labels, type: BlockType | undefined) {
    this.#registry = registry;
    this.#kind = kind;
    this.#dotted = dotted;
    this.#tags = tags;
    this.#type = type;
    this.#block = type === undefined ? undefined : registry.block(type, tags, dotted);
  }

  counter(name: string, more?: Labels, tail?: string): Counter {
    const known = this.#ofBlock('counter', name, more) as Counter | undefined;
    return known ?? this.#keep(this.#registry.counter(this.#prometheus(name), this.#join(more), this.#named(tail ?? name)));
  }

  gauge(name: string, more?: Labels, tail?: string): Gauge {
    const known = this.#ofBlock('gauge', name, more) as Gauge | undefined;
    return known ?? this.#keep(this.#registry.gauge(this.#prometheus(name), this.#join(more), this.#named(tail ?? name)));
  }

  histogram(name: string, more?: Labels, tail?: string): Histogram {
    const known = this.#ofBlock('histogram', name, more) as Histogram | undefined;
    return known ?? this.#keep(this.#registry.histogram(this.#prometheus(name), this.#join(more), this.#named(tail ?? name)));
  }

  at(index: number): Counter | Gauge | Histogram {
    return this.#block!.handle(index);
  }

  set(index: number, value: number): void {
    this.#block!.set(index, value);
  }

  add(index: number, amount: number): void {
    this.#block!.add(index, amount);
  }

  release(): void {
    this.#block?.release();
    for (const series of this.#made ?? []) series.release();
  }

  /** The series of the block; undefined for what is not part of it, and for one of another kind, which the registry refuses. */
  #ofBlock(kind: MetricKind, name: string, more: Labels | undefined): Counter | Gauge | Histogram | undefined {
    const index = more === undefined ? this.#type?.indexOf(name) : undefined;
    return index === undefined || this.#type!.series[index]!.kind !== kind ? undefined : this.#block!.handle(index);
  }

  #prometheus(name: string): string {
    return prometheusName(this.#kind, name);
  }

  #named(tail: string): { dotted: string } {
    return { dotted: `${this.#dotted}.${tail}` };
  }

  #join(more: Labels | undefined): Labels {
    return more === undefined ? this.#tags : { ...more, ...this.#tags };
  }

  #keep<S extends Series>(series: S): S {
    this.#made ??= new Set();
    this.#made.add(series);
    return series;
  }
}

function prometheusName(kind: string, name: string): string {
  return `envoy_${kind}_${name.replaceAll('.', '_')}`;
}
