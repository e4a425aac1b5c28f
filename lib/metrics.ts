/** The hot path's metrics: handles bound once, numbers in typed arrays, read as Prometheus text or as Envoy's dotted stats from the same counters. */
import { Block } from './metrics-block.ts';
import type { BlockType } from './metrics-block.ts';
import { Cells, cellsOf, DEFAULT_BOUNDS_MS, handleOver } from './metrics-handles.ts';
import type { Counter, Family, Gauge, Histogram, HistogramOptions, Labels, MetricKind, SeriesOptions } from './metrics-handles.ts';

export { Counter, DEFAULT_BOUNDS_MS, Gauge, Histogram } from './metrics-handles.ts';
export type { Family, HistogramOptions, Labels, MetricKind, Series, SeriesOptions } from './metrics-handles.ts';

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
/** A family as the registry holds it: series of their own, and those that are part of blocks. */
class SeriesFamily implements Family {
  readonly name: string;
  readonly kind: MetricKind;
  help: string;
  readonly bounds: Float64Array;
  readonly series = new Map<string, Counter | Gauge | Histogram>();
  /** Whose `index`th series is of this family, by label text. */
  blocks: ReadonlyMap<string, Block> = NO_BLOCKS;
  index = 0;

  constructor(name: string, kind: MetricKind, help: string, bounds: readonly number[]) {
    this.name = name;
    this.kind = kind;
    this.help = help;
    this.bounds = Float64Array.from(bounds);
  }

  get size(): number {
    return this.series.size + this.blocks.size;
  }

  get(text: string): Counter | Gauge | Histogram | undefined {
    return this.series.get(text) ?? this.blocks.get(text)?.handle(this.index);
  }

  *each(): Generator<Counter | Gauge | Histogram> {
    yield* this.series.values();
    for (const block of this.blocks.values()) yield block.look(this.index);
  }
}

const NO_BLOCKS: ReadonlyMap<string, Block> = new Map();

export interface RegistryOptions {
  /** Label sets per family; further ones share one series with `overflow="true"`. Default 5000. */
  seriesMax?: number;
}

/** All metrics of one proxy. */
export class Registry {
  /** Rises whenever `expire` removed a series that was not pinned: caches of such handles must then be dropped. */
  generation = 0;
  readonly #families = new Map<string, SeriesFamily>();
  readonly #blocks = new Map<BlockType, { readonly families: readonly SeriesFamily[]; readonly known: Map<string, Block> }>();
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

  /**
   * The block of that type and label set; the same one for the same labels. All its series are read as 0 from now on, and a handle is made
   * only for those that are bound. `dotted` is what their dotted names begin with. Throws when a family is of another kind or in another type.
   */
  block(type: BlockType, labels: Labels, dotted: string): Block {
    const { families, known } = this.#blockType(type);
    const text = labelText(labels);
    const found = known.get(text);
    if (found !== undefined) {
      found.pinned = true;
      return found;
    }
    const over = known.size >= this.#seriesMax;
    const key = over ? OVERFLOW_TEXT : text;
    const shared = over ? known.get(key) : undefined;
    if (shared !== undefined) return shared;
    const block = over
      ? new Block(type, families, OVERFLOW, key, undefined, this.#cells)
      : new Block(type, families, labels, key, dotted, this.#cells);
    known.set(key, block);
    return block;
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
      if (family.size === 0) this.#families.delete(name);
    }
    removed += this.#expireBlocks(nowMs, idleMs);
    if (removed > 0) this.generation++;
    return removed;
  }

  /** A block goes as a whole, when no series of it was written. */
  #expireBlocks(nowMs: number, idleMs: number): number {
    let removed = 0;
    for (const [type, { families, known }] of this.#blocks) {
      for (const [key, block] of known) {
        if (!block.isIdle(nowMs, idleMs)) continue;
        known.delete(key);
        removed += families.length;
      }
      if (known.size > 0) continue;
      this.#blocks.delete(type);
      for (const family of families) {
        family.blocks = NO_BLOCKS;
        if (family.size === 0) this.#families.delete(family.name);
      }
    }
    return removed;
  }

  /** Sets counters and histograms to zero and leaves gauges alone, as Envoy's `/reset_counters` does. */
  resetCounters(): void {
    for (const family of this.#families.values()) {
      if (family.kind === 'gauge') continue;
      for (const series of family.each()) series.reset();
    }
  }

  #series(kind: MetricKind, name: string, labels: Labels, options: SeriesOptions, bounds: readonly number[]): Counter | Gauge | Histogram {
    const family = this.#family(kind, name, options, bounds);
    const text = labelText(labels);
    const known = family.get(text);
    if (known !== undefined) {
      if (options.pinned !== false) known.pinned = true;
      return known;
    }
    if (family.size >= this.#seriesMax) return this.#make(family, OVERFLOW, OVERFLOW_TEXT, {});
    return this.#make(family, labels, text, options);
  }

  #make(family: SeriesFamily, labels: Labels, text: string, options: SeriesOptions): Counter | Gauge | Histogram {
    const known = family.get(text);
    if (known !== undefined) return known;
    const made = handleOver(family, labels, text, options, this.#cells.take(cellsOf(family.kind, family.bounds)));
    family.series.set(text, made);
    return made;
  }

  #blockType(type: BlockType): { readonly families: readonly SeriesFamily[]; readonly known: Map<string, Block> } {
    const found = this.#blocks.get(type);
    if (found !== undefined) return found;
    const families = type.series.map(({ kind, name }) => this.#family(kind, name, {}, kind === 'histogram' ? DEFAULT_BOUNDS_MS : []));
    const taken = families.find((family) => family.blocks !== NO_BLOCKS);
    if (taken !== undefined) throw new Error(`metric ${JSON.stringify(taken.name)} is part of another type of block already`);
    const known = new Map<string, Block>();
    families.forEach((family, index) => {
      family.blocks = known;
      family.index = index;
    });
    const entry = { families, known };
    this.#blocks.set(type, entry);
    return entry;
  }

  #family(kind: MetricKind, name: string, options: SeriesOptions, bounds: readonly number[]): SeriesFamily {
    const known = this.#families.get(name);
    if (known !== undefined) {
      if (known.kind !== kind) throw new Error(`metric ${JSON.stringify(name)} is a ${known.kind}, asked for as a ${kind}`);
      if (known.help === '' && options.help !== undefined) known.help = options.help;
      return known;
    }
    if (!NAME.test(name)) throw new Error(`a metric name takes letters, digits, "_" and ":", received ${JSON.stringify(name)}`);
    const family = new SeriesFamily(name, kind, options.help ?? '', bounds);
    this.#families.set(name, family);
    return family;
  }
}

const OVERFLOW: Labels = { overflow: 'true' };
const OVERFLOW_TEXT = 'overflow="true"';

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
