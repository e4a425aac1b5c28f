/** Series that come together, one set per owner: a cluster has some seventy, of which most are never written. */
import { cellsOf, DEFAULT_BOUNDS_MS, dottedName, handleOver } from './metrics-handles.ts';
import type { Cell, Cells, Counter, Family, Gauge, Histogram, Labels, MetricKind } from './metrics-handles.ts';

export interface BlockSeries {
  readonly kind: MetricKind;
  /** The family's name. Histograms have the default bounds. */
  readonly name: string;
  /** What follows the block's own dotted name. */
  readonly tail: string;
}

/**
 * Which series a block has, and where each has its cells. Made once; its identity is what registries know it by. The first `early` series have
 * their cells from the start. The others get theirs, all at once, when the first of them is bound or written: an owner that is never used
 * holds no numbers for them, and they are read as 0 all the same.
 */
export class BlockType {
  readonly series: readonly BlockSeries[];
  readonly early: number;
  /** Within the early cells, or within the late ones. */
  readonly offsets: readonly number[];
  readonly earlyCells: number;
  readonly lateCells: number;
  /** What is read where nothing was written. */
  readonly zeros: Cell;
  readonly #indexes: ReadonlyMap<string, number>;

  constructor(series: readonly BlockSeries[], early = series.length) {
    const bounds = Float64Array.from(DEFAULT_BOUNDS_MS);
    const offsets: number[] = [];
    const cells = [0, 0];
    series.forEach(({ kind }, index) => {
      const part = index < early ? 0 : 1;
      offsets.push(cells[part]!);
      cells[part]! += cellsOf(kind, bounds);
    });
    this.series = series;
    this.early = early;
    this.offsets = offsets;
    [this.earlyCells, this.lateCells] = cells as [number, number];
    this.zeros = { array: new Float64Array(this.lateCells), index: 0 };
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
  readonly #cells: Cells;
  readonly #array: Float64Array;
  readonly #start: number;
  #late: Cell | undefined = undefined;
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
    cells: Cells,
  ) {
    this.#type = type;
    this.#families = families;
    this.#labels = labels;
    this.#labelText = labelText;
    this.#dotted = dotted;
    this.#cells = cells;
    const { array, index } = cells.take(type.earlyCells);
    this.#array = array;
    this.#start = index;
  }

  /** The handle to write with: the same one each time. */
  handle(index: number): Counter | Gauge | Histogram {
    this.#handles ??= [];
    return (this.#handles[index] ??= this.#make(index, this.#cell(index)));
  }

  /** A handle to read with: made for the caller when nobody has bound one. */
  look(index: number): Counter | Gauge | Histogram {
    return this.#handles?.[index] ?? this.#make(index, this.#written(index) ? this.#cell(index) : this.#zero(index));
  }

  /** Writes a counter or gauge without a handle: for what is written seldom. */
  set(index: number, value: number): void {
    if (value === 0 && !this.#written(index)) return;
    const cell = this.#cell(index);
    cell.array[cell.index] = value;
  }

  add(index: number, amount: number): void {
    const cell = this.#cell(index);
    cell.array[cell.index]! += amount;
  }

  /** Nobody will write again: all series go once they have been idle long enough. */
  release(): void {
    this.pinned = false;
  }

  /** Whether it was released and no series was written for so long. The registry asks at each sweep. */
  isIdle(nowMs: number, idleMs: number): boolean {
    const late = this.#late;
    let sum = 0;
    for (let i = this.#start; i < this.#start + this.#type.earlyCells; i++) sum += this.#array[i]!;
    if (late !== undefined) for (let i = late.index; i < late.index + this.#type.lateCells; i++) sum += late.array[i]!;
    if (sum !== this.#sweptSum) {
      this.#sweptSum = sum;
      this.#changedMs = nowMs;
      return false;
    }
    return !this.pinned && nowMs - this.#changedMs >= idleMs;
  }

  /** Whether the series has cells of its own by now. */
  #written(index: number): boolean {
    return index < this.#type.early || this.#late !== undefined;
  }

  #cell(index: number): Cell {
    const offset = this.#type.offsets[index]!;
    if (index < this.#type.early) return { array: this.#array, index: this.#start + offset };
    const late = (this.#late ??= this.#cells.take(this.#type.lateCells));
    return { array: late.array, index: late.index + offset };
  }

  #zero(index: number): Cell {
    return { array: this.#type.zeros.array, index: this.#type.offsets[index]! };
  }

  #make(index: number, cell: Cell): Counter | Gauge | Histogram {
    const family = this.#families[index]!;
    const dotted = this.#dotted === undefined ? dottedName(family.name, this.#labels) : `${this.#dotted}.${this.#type.series[index]!.tail}`;
    return handleOver(family, this.#labels, this.#labelText, { dotted }, cell);
  }
}
