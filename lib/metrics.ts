/** The hot path's metrics: handles bound once, numbers in typed arrays, read as Prometheus text or as Envoy's dotted stats from the same counters. */

export type Labels = Readonly<Record<string, string>>;
export type MetricKind = 'counter' | 'gauge' | 'histogram';

/** What a series is called on both sides. */
export interface SeriesOptions {
  /** Envoy's dotted name for `/stats`, for example `cluster.x.upstream_rq_2xx`. Default: family name and label pairs joined with dots. */
  readonly dotted?: string;
  /** One line for `# HELP`; the first one given for a family counts. */
  readonly help?: string;
  /** False = may expire when idle though nobody released it; its owner must then watch `registry.generation`. Default true. */
  readonly pinned?: boolean;
}

export interface HistogramOptions extends SeriesOptions {
  /** Upper bounds, ascending, without infinity; those of a family's first series count. Default: milliseconds as Envoy and Istio bucket them. */
  readonly bounds?: readonly number[];
}

/** One label set of a family. Owners call `release` when they will not write again; the value stays readable until it has been idle long enough. */
export interface Series {
  readonly family: Family;
  readonly labels: Labels;
  readonly dotted: string;
  /** `name="value",…` escaped, without braces; empty without labels. */
  readonly labelText: string;
  release(): void;
}

export interface Family {
  readonly name: string;
  readonly kind: MetricKind;
  help: string;
  readonly bounds: Float64Array;
  readonly series: ReadonlyMap<string, Counter | Gauge | Histogram>;
}

/** Envoy's default histogram bounds, which Istio's duration metrics share. */
export const DEFAULT_BOUNDS_MS: readonly number[] = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000,
];

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const CHUNK = 1024;

/** Numbers for counters and gauges: chunks that never move, so that a handle keeps its array and index. A cell is never given to another handle: somebody may still hold the old one. */
class Cells {
  #chunk = new Float64Array(CHUNK);
  #used = 0;

  take(): { array: Float64Array; index: number } {
    if (this.#used === CHUNK) {
      this.#chunk = new Float64Array(CHUNK);
      this.#used = 0;
    }
    return { array: this.#chunk, index: this.#used++ };
  }
}

/** What every handle has in common: its place in the registry, and how it ages. */
abstract class Handle implements Series {
  readonly family: Family;
  readonly labels: Labels;
  readonly dotted: string;
  readonly labelText: string;
  pinned: boolean;
  /** Reading at the last sweep and when it last differed; only the registry writes them. */
  sweptValue = Number.NaN;
  changedMs = 0;

  constructor(family: Family, labels: Labels, labelText: string, options: SeriesOptions) {
    this.family = family;
    this.labels = labels;
    this.labelText = labelText;
    this.dotted = options.dotted ?? dottedName(family.name, labels);
    this.pinned = options.pinned ?? true;
  }

  release(): void {
    this.pinned = false;
  }

  /** A number that changes with every write. */
  abstract activity(): number;
}

/** Only goes up. `inc` is one add into a typed array. */
export class Counter extends Handle {
  readonly #array: Float64Array;
  readonly #index: number;

  constructor(family: Family, labels: Labels, labelText: string, options: SeriesOptions, cell: { array: Float64Array; index: number }) {
    super(family, labels, labelText, options);
    this.#array = cell.array;
    this.#index = cell.index;
  }

  inc(): void {
    this.#array[this.#index]!++;
  }

  add(amount: number): void {
    this.#array[this.#index]! += amount;
  }

  get value(): number {
    return this.#array[this.#index]!;
  }

  /** Admin `/reset_counters`. */
  reset(): void {
    this.#array[this.#index] = 0;
  }

  activity(): number {
    return this.value;
  }
}

/** Goes up and down. */
export class Gauge extends Counter {
  dec(): void {
    this.add(-1);
  }

  set(value: number): void {
    this.add(value - this.value);
  }
}

/** Counts per bucket and a sum. `record` is a short search and two adds. */
export class Histogram extends Handle {
  /** Counts per bound, the last one for what is above all bounds. */
  readonly counts: Float64Array;
  readonly #bounds: Float64Array;
  readonly #sum = new Float64Array(1);

  constructor(family: Family, labels: Labels, labelText: string, options: SeriesOptions) {
    super(family, labels, labelText, options);
    this.#bounds = family.bounds;
    this.counts = new Float64Array(family.bounds.length + 1);
  }

  record(value: number): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.#sum[0]! += value;
  }

  get sum(): number {
    return this.#sum[0]!;
  }

  get count(): number {
    let total = 0;
    for (const count of this.counts) total += count;
    return total;
  }

  /** The value below which the share `q` (0 to 1) of the records lies, interpolated inside its bucket; undefined without records. */
  quantile(q: number): number | undefined {
    const total = this.count;
    if (total === 0) return undefined;
    let left = q * total;
    for (let bucket = 0; bucket < this.counts.length; bucket++) {
      const count = this.counts[bucket]!;
      if (left <= count && count > 0) {
        const low = bucket === 0 ? 0 : this.#bounds[bucket - 1]!;
        const high = this.#bounds[bucket] ?? low;
        return low + ((high - low) * left) / count;
      }
      left -= count;
    }
    return this.#bounds.at(-1);
  }

  reset(): void {
    this.counts.fill(0);
    this.#sum[0] = 0;
  }

  activity(): number {
    return this.count;
  }
}

export interface RegistryOptions {
  /** Label sets per family; further ones share one series with `overflow="true"`. Default 5000. */
  seriesMax?: number;
}

/** All metrics of one proxy. */
export class Registry {
  /** Rises whenever `expire` removed a series that was not pinned: caches of such handles must then be dropped. */
  generation = 0;
  readonly #families = new Map<string, Family & { series: Map<string, Counter | Gauge | Histogram> }>();
  readonly #cells = new Cells();
  readonly #seriesMax: number;

  constructor(options: RegistryOptions = {}) {
    this.#seriesMax = options.seriesMax ?? 5000;
  }

  /** The counter of that name and label set; the same handle for the same labels. Throws on a bad name or when the name is of another kind. */
  counter(name: string, labels: Labels = {}, options: SeriesOptions = {}): Counter {
    return this.#series('counter', name, labels, options, []) as Counter;
  }

  gauge(name: string, labels: Labels = {}, options: SeriesOptions = {}): Gauge {
    return this.#series('gauge', name, labels, options, []) as Gauge;
  }

  histogram(name: string, labels: Labels = {}, options: HistogramOptions = {}): Histogram {
    return this.#series('histogram', name, labels, options, options.bounds ?? DEFAULT_BOUNDS_MS) as Histogram;
  }

  families(): IterableIterator<Family> {
    return this.#families.values();
  }

  /** Removes series that are released or not pinned and had no write for `idleMs`. Call it now and then, with the clock's reading. Answers how many went. */
  expire(nowMs: number, idleMs: number): number {
    let removed = 0;
    for (const [name, family] of this.#families) {
      for (const [key, series] of family.series) {
        const activity = series.activity();
        if (activity !== series.sweptValue) {
          series.sweptValue = activity;
          series.changedMs = nowMs;
        } else if (!series.pinned && nowMs - series.changedMs >= idleMs) {
          family.series.delete(key);
          removed++;
        }
      }
      if (family.series.size === 0) this.#families.delete(name);
    }
    if (removed > 0) this.generation++;
    return removed;
  }

  /** Sets counters and histograms to zero and leaves gauges alone, as Envoy's `/reset_counters` does. */
  resetCounters(): void {
    for (const family of this.#families.values()) {
      if (family.kind === 'gauge') continue;
      for (const series of family.series.values()) series.reset();
    }
  }

  #series(kind: MetricKind, name: string, labels: Labels, options: SeriesOptions, bounds: readonly number[]): Counter | Gauge | Histogram {
    const family = this.#family(kind, name, options, bounds);
    const text = labelText(labels);
    const known = family.series.get(text);
    if (known !== undefined) {
      if (options.pinned !== false) known.pinned = true;
      return known;
    }
    if (family.series.size >= this.#seriesMax) return this.#make(family, OVERFLOW, 'overflow="true"', {});
    return this.#make(family, labels, text, options);
  }

  #make(
    family: Family & { series: Map<string, Counter | Gauge | Histogram> },
    labels: Labels,
    text: string,
    options: SeriesOptions,
  ): Counter | Gauge | Histogram {
    const known = family.series.get(text);
    if (known !== undefined) return known;
    let made: Counter | Gauge | Histogram;
    if (family.kind === 'histogram') made = new Histogram(family, labels, text, options);
    else made = new (family.kind === 'gauge' ? Gauge : Counter)(family, labels, text, options, this.#cells.take());
    family.series.set(text, made);
    return made;
  }

  #family(
    kind: MetricKind,
    name: string,
    options: SeriesOptions,
    bounds: readonly number[],
  ): Family & { series: Map<string, Counter | Gauge | Histogram> } {
    const known = this.#families.get(name);
    if (known !== undefined) {
      if (known.kind !== kind) throw new Error(`metric ${JSON.stringify(name)} is a ${known.kind}, asked for as a ${kind}`);
      if (known.help === '' && options.help !== undefined) known.help = options.help;
      return known;
    }
    if (!NAME.test(name)) throw new Error(`a metric name takes letters, digits, "_" and ":", received ${JSON.stringify(name)}`);
    const family = {
      name,
      kind,
      help: options.help ?? '',
      bounds: Float64Array.from(bounds),
      series: new Map<string, Counter | Gauge | Histogram>(),
    };
    this.#families.set(name, family);
    return family;
  }
}

const OVERFLOW: Labels = { overflow: 'true' };

/** An empty registry. */
export function createRegistry(options: RegistryOptions = {}): Registry {
  return new Registry(options);
}

function labelText(labels: Labels): string {
  let text = '';
  for (const name of Object.keys(labels)) {
    if (!LABEL.test(name)) throw new Error(`a label name takes letters, digits and "_", received ${JSON.stringify(name)}`);
    text += `${text === '' ? '' : ','}${name}="${escapeLabel(labels[name]!)}"`;
  }
  return text;
}

function escapeLabel(value: string): string {
  return /[\\"\n]/.test(value) ? value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n') : value;
}

function dottedName(name: string, labels: Labels): string {
  let text = name;
  for (const label of Object.keys(labels)) text += `.${label}.${labels[label]!}`;
  return text;
}
