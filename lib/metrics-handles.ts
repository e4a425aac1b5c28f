/** The handles of the hot path: a place in a typed array, with the name and labels by which it is read. */

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
  /** Every series with its value of now. Those of a block that nobody has bound are made for the reader alone. */
  each(): Iterable<Counter | Gauge | Histogram>;
}

/** Numbers in a row that belong to one owner. */
export interface Cell {
  readonly array: Float64Array;
  readonly index: number;
}

/** Envoy's default histogram bounds, which Istio's duration metrics share. */
export const DEFAULT_BOUNDS_MS: readonly number[] = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000,
];

const CHUNK = 1024;

/** Numbers for counters and gauges: chunks that never move, so that a handle keeps its array and index. A cell is never given to another handle: somebody may still hold the old one. */
export class Cells {
  #chunk = new Float64Array(CHUNK);
  #used = 0;

  /** So many zeros in a row. */
  take(count: number): Cell {
    if (count > CHUNK) return { array: new Float64Array(count), index: 0 };
    if (this.#used + count > CHUNK) {
      this.#chunk = new Float64Array(CHUNK);
      this.#used = 0;
    }
    const index = this.#used;
    this.#used += count;
    return { array: this.#chunk, index };
  }
}

/** How many cells a series takes: a histogram has one per bound, one for what is above all of them, and its sum. */
export function cellsOf(kind: MetricKind, bounds: Float64Array): number {
  return kind === 'histogram' ? bounds.length + 2 : 1;
}

/** The handle over cells that its owner has taken. */
export function handleOver(
  family: Family,
  labels: Labels,
  labelText: string,
  options: SeriesOptions,
  cell: Cell,
): Counter | Gauge | Histogram {
  if (family.kind === 'histogram') return new Histogram(family, labels, labelText, options, cell);
  return new (family.kind === 'gauge' ? Gauge : Counter)(family, labels, labelText, options, cell);
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

  constructor(family: Family, labels: Labels, labelText: string, options: SeriesOptions, cell: Cell) {
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
  readonly #bounds: Float64Array;
  readonly #array: Float64Array;
  readonly #index: number;
  readonly #sumIndex: number;

  constructor(family: Family, labels: Labels, labelText: string, options: SeriesOptions, cell: Cell) {
    super(family, labels, labelText, options);
    this.#bounds = family.bounds;
    this.#array = cell.array;
    this.#index = cell.index;
    this.#sumIndex = cell.index + family.bounds.length + 1;
  }

  record(value: number): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket++;
    this.#array[this.#index + bucket]!++;
    this.#array[this.#sumIndex]! += value;
  }

  /** Counts per bound, the last one for what is above all bounds. */
  get counts(): Float64Array {
    return this.#array.subarray(this.#index, this.#sumIndex);
  }

  get sum(): number {
    return this.#array[this.#sumIndex]!;
  }

  get count(): number {
    let total = 0;
    for (let i = this.#index; i < this.#sumIndex; i++) total += this.#array[i]!;
    return total;
  }

  /** The value below which the share `q` (0 to 1) of the records lies, interpolated inside its bucket; undefined without records. */
  quantile(q: number): number | undefined {
    const total = this.count;
    if (total === 0) return undefined;
    const { counts } = this;
    let left = q * total;
    for (let bucket = 0; bucket < counts.length; bucket++) {
      const count = counts[bucket]!;
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
    this.#array.fill(0, this.#index, this.#sumIndex + 1);
  }

  activity(): number {
    return this.count;
  }
}

/** What a series without a dotted name of its own is called. */
export function dottedName(name: string, labels: Labels): string {
  let text = name;
  for (const label of Object.keys(labels)) text += `.${label}.${labels[label]!}`;
  return text;
}
