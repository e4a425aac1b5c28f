/** Series that come together, one set per owner: a cluster has some forty, of which most are never written. */
import { cellsOf, DEFAULT_BOUNDS_MS, dottedName, handleOver } from './metrics-handles.ts';
import type { Cell, Counter, Family, Gauge, Histogram, Labels, MetricKind } from './metrics-handles.ts';

export interface BlockSeries {
  readonly kind: MetricKind;
  /** The family's name. Histograms have the default bounds. */
  readonly name: string;
  /** What follows the block's own dotted name. */
  readonly tail: string;
}

/** Which series a block has, and where each has its cells. Made once; its identity is what registries know it by. */
export class BlockType {
  readonly series: readonly BlockSeries[];
  readonly offsets: readonly number[];
  readonly cells: number;
  readonly #indexes: ReadonlyMap<string, number>;

  constructor(series: readonly BlockSeries[]) {
    const bounds = Float64Array.from(DEFAULT_BOUNDS_MS);
    const offsets: number[] = [];
    let cells = 0;
    for (const { kind } of series) {
      offsets.push(cells);
      cells += cellsOf(kind, bounds);
    }
    this.series = series;
    this.offsets = offsets;
    this.cells = cells;
    this.#indexes = new Map(series.map(({ tail }, index) => [tail, index]));
  }

  /** The place of a series by its tail; undefined for one that is not part of it. */
  indexOf(tail: string): number | undefined {
    return this.#indexes.get(tail);
  }
}

/** One owner's series: their numbers are there from the start, their handles from the first use. */
export class Block {
  readonly #type: BlockType;
  readonly #families: readonly Family[];
  readonly #labels: Labels;
  readonly #labelText: string;
  readonly #dotted: string | undefined;
  readonly #array: Float64Array;
  readonly #start: number;
  #handles: (Counter | Gauge | Histogram | undefined)[] | undefined = undefined;
  pinned = true;
  #sweptSum = Number.NaN;
  #changedMs = 0;

  constructor(
    type: BlockType,
    families: readonly Family[],
    labels: Labels,
    labelText: string,
    /** Undefined = each series is called by its family and labels. */
    dotted: string | undefined,
    cells: Cell,
  ) {
    this.#type = type;
    this.#families = families;
    this.#labels = labels;
    this.#labelText = labelText;
    this.#dotted = dotted;
    this.#array = cells.array;
    this.#start = cells.index;
  }

  /** The handle to write with: the same one each time. */
  handle(index: number): Counter | Gauge | Histogram {
    this.#handles ??= [];
    return (this.#handles[index] ??= this.#make(index));
  }

  /** A handle to read with: made for the caller when nobody has bound one. */
  look(index: number): Counter | Gauge | Histogram {
    return this.#handles?.[index] ?? this.#make(index);
  }

  /** Writes a counter or gauge without a handle: for what is written seldom. */
  set(index: number, value: number): void {
    this.#array[this.#start + this.#type.offsets[index]!] = value;
  }

  add(index: number, amount: number): void {
    this.#array[this.#start + this.#type.offsets[index]!]! += amount;
  }

  /** Nobody will write again: all series go once they have been idle long enough. */
  release(): void {
    this.pinned = false;
  }

  /** Whether it was released and no series was written for so long. The registry asks at each sweep. */
  isIdle(nowMs: number, idleMs: number): boolean {
    let sum = 0;
    for (let i = this.#start; i < this.#start + this.#type.cells; i++) sum += this.#array[i]!;
    if (sum !== this.#sweptSum) {
      this.#sweptSum = sum;
      this.#changedMs = nowMs;
      return false;
    }
    return !this.pinned && nowMs - this.#changedMs >= idleMs;
  }

  #make(index: number): Counter | Gauge | Histogram {
    const family = this.#families[index]!;
    const dotted = this.#dotted === undefined ? dottedName(family.name, this.#labels) : `${this.#dotted}.${this.#type.series[index]!.tail}`;
    const cell = { array: this.#array, index: this.#start + this.#type.offsets[index]! };
    return handleOver(family, this.#labels, this.#labelText, { dotted }, cell);
  }
}
