/** A registry as text: Prometheus exposition format, and Envoy's `/stats` as text or JSON, in slices that never hold the loop for long. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { histogramsJson, histogramText, QUANTILES, quantiles } from './metrics-histograms.ts';
import type { HistogramMode } from './metrics-histograms.ts';
import { Gauge, Histogram } from './metrics.ts';
import type { Family, MetricKind, Registry } from './metrics.ts';

/** Characters after which a slice ends: about a fifth of a millisecond of work. */
const SLICE_LENGTH = 64 * 1024;

export interface StatsFilter {
  /** Only stats whose dotted name it accepts. */
  readonly matches?: (dotted: string) => boolean;
  /** Only stats that were ever written. */
  readonly usedOnly?: boolean;
  /** Only stats of one kind. */
  readonly kind?: MetricKind;
  /** How histograms are shown; default `summary`, in Prometheus text `cumulative`. */
  readonly histograms?: HistogramMode;
}

/** Prometheus text (version 0.0.4), a slice per step. A caller that writes to a socket takes a step per turn of the loop; see `inTurns`. */
export function* renderPrometheus(registry: Registry, filter: StatsFilter = {}): Generator<string> {
  let text = '';
  const summary = filter.histograms === 'summary';
  for (const family of registry.families()) {
    if (filter.kind !== undefined && family.kind !== filter.kind) continue;
    const type = summary && family.kind === 'histogram' ? 'summary' : family.kind;
    let head = `${family.help === '' ? '' : `# HELP ${family.name} ${family.help}\n`}# TYPE ${family.name} ${type}\n`;
    for (const series of family.each()) {
      if (!wanted(series, filter)) continue;
      text += head;
      head = '';
      if (series instanceof Histogram) text += summary ? summaryText(family, series) : bucketText(family, series);
      else text += `${family.name}${series.labelText === '' ? '' : `{${series.labelText}}`} ${series.value}\n`;
      if (text.length >= SLICE_LENGTH) {
        yield text;
        text = '';
      }
    }
  }
  if (text !== '') yield text;
}

/** The same slices, with a turn of the event loop between two of them. */
export async function* inTurns(slices: Iterable<string>): AsyncGenerator<string> {
  for (const slice of slices) {
    yield slice;
    await nextTurn();
  }
}

/** One of Envoy's stats. */
export type Stat =
  | { readonly name: string; readonly kind: 'counter' | 'gauge'; readonly value: number }
  | { readonly name: string; readonly kind: 'histogram'; readonly histogram: Histogram };

/** The stats by dotted name, sorted as Envoy prints them: counters and gauges, then histograms. */
export function stats(registry: Registry, filter: StatsFilter = {}): Stat[] {
  const numbers: Stat[] = [];
  const histograms: Stat[] = [];
  for (const family of registry.families()) {
    if (filter.kind !== undefined && family.kind !== filter.kind) continue;
    for (const series of family.each()) {
      if (!wanted(series, filter)) continue;
      if (series instanceof Histogram) histograms.push({ name: series.dotted, kind: 'histogram', histogram: series });
      else numbers.push({ name: series.dotted, kind: series instanceof Gauge ? 'gauge' : 'counter', value: series.value });
    }
  }
  const byName = (a: Stat, b: Stat): number => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  return [...numbers.sort(byName), ...histograms.sort(byName)];
}

/** Envoy's `/stats` text: `name: value` a line; histograms as `P50(interval,total)` pairs, where both are of the whole life here. */
export function renderStats(registry: Registry, filter: StatsFilter = {}): string {
  return [...renderStatsSlices(registry, filter)].join('');
}

/** The same in slices, for `inTurns`. */
export function* renderStatsSlices(registry: Registry, filter: StatsFilter = {}): Generator<string> {
  let text = '';
  for (const stat of stats(registry, filter)) {
    text += stat.kind === 'histogram' ? histogramText(stat, filter.histograms ?? 'summary') : `${stat.name}: ${stat.value}\n`;
    if (text.length >= SLICE_LENGTH) {
      yield text;
      text = '';
    }
  }
  if (text !== '') yield text;
}

/** Envoy's `/stats?format=json`: an object with the array `stats`. */
export function renderStatsJson(registry: Registry, filter: StatsFilter = {}): string {
  const all = stats(registry, filter);
  const numbers: unknown[] = all.flatMap((stat) => (stat.kind === 'histogram' ? [] : [{ name: stat.name, value: stat.value }]));
  const histograms = all.filter((stat) => stat.kind === 'histogram');
  if (histograms.length > 0) numbers.push({ histograms: histogramsJson(histograms, filter.histograms ?? 'summary') });
  return JSON.stringify({ stats: numbers });
}

function wanted(series: { readonly dotted: string; activity(): number }, filter: StatsFilter): boolean {
  if (filter.usedOnly === true && series.activity() === 0) return false;
  return filter.matches === undefined || filter.matches(series.dotted);
}

function summaryText(family: Family, series: Histogram): string {
  const labels = series.labelText === '' ? '' : `${series.labelText},`;
  const braces = series.labelText === '' ? '' : `{${series.labelText}}`;
  const lines = quantiles(series).map((value, i) => `${family.name}{${labels}quantile="${QUANTILES[i]! / 100}"} ${value ?? 'NaN'}\n`);
  return `${lines.join('')}${family.name}_sum${braces} ${series.sum}\n${family.name}_count${braces} ${series.count}\n`;
}

function bucketText(family: Family, series: Histogram): string {
  const labels = series.labelText === '' ? '' : `${series.labelText},`;
  const braces = series.labelText === '' ? '' : `{${series.labelText}}`;
  let text = '';
  const { counts } = series;
  let total = 0;
  for (let bucket = 0; bucket < family.bounds.length; bucket++) {
    total += counts[bucket]!;
    text += `${family.name}_bucket{${labels}le="${family.bounds[bucket]!}"} ${total}\n`;
  }
  total += counts[family.bounds.length]!;
  return `${text}${family.name}_bucket{${labels}le="+Inf"} ${total}\n${family.name}_sum${braces} ${series.sum}\n${family.name}_count${braces} ${total}\n`;
}
