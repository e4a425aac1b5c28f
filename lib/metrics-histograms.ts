/** Histograms as Envoy's `/stats` shows them: quantiles, or counts per bucket, as text and as JSON. Interval and total are both of the whole life here. */
import type { Histogram } from './metrics.ts';

/** Envoy's `histogram_buckets`. */
export const HISTOGRAM_MODES = ['cumulative', 'disjoint', 'detailed', 'summary'] as const;
export type HistogramMode = (typeof HISTOGRAM_MODES)[number];

export interface NamedHistogram {
  readonly name: string;
  readonly histogram: Histogram;
}

export const QUANTILES = [0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100] as const;

/** One line, or for `detailed` four. */
export function histogramText({ name, histogram }: NamedHistogram, mode: HistogramMode): string {
  if (histogram.count === 0) return `${name}: No recorded values\n`;
  const summary = quantiles(histogram).map((value, i) => `P${QUANTILES[i]}(${value},${value})`);
  if (mode === 'summary') return `${name}: ${summary.join(' ')}\n`;
  if (mode === 'detailed') {
    const filled = details(histogram).map(({ low, width, count }) => ` ${low},${width}:${count}`);
    const totals = filled.join(',').trimStart();
    return `${name}:\n  totals=${totals}\n  intervals=${totals}\n  summary=${summary.join(' ')}\n`;
  }
  return `${name}: ${buckets(histogram, mode)
    .map(({ bound, count }) => `B${boundText(bound)}(${count},${count})`)
    .join(' ')}\n`;
}

/** The value of `histograms` in Envoy's JSON. */
export function histogramsJson(histograms: readonly NamedHistogram[], mode: HistogramMode): unknown {
  const twice = (value: number | null): object => ({ interval: value, cumulative: value });
  if (mode === 'summary')
    return {
      supported_quantiles: QUANTILES,
      computed_quantiles: histograms.map(({ name, histogram }) => ({ name, values: quantiles(histogram).map(twice) })),
    };
  if (mode === 'detailed')
    return {
      supported_percentiles: QUANTILES,
      details: histograms.map(({ name, histogram }) => {
        const filled = details(histogram).map(({ low, width, count }) => ({ lower_bound: low, width, count }));
        return { name, totals: filled, intervals: filled, percentiles: quantiles(histogram).map(twice) };
      }),
    };
  return histograms.map(({ name, histogram }) => ({
    name,
    buckets: buckets(histogram, mode).map(({ bound, count }) => ({ upper_bound: bound, ...twice(count) })),
  }));
}

/** By `QUANTILES`; null without records. */
export function quantiles(histogram: Histogram): (number | null)[] {
  return QUANTILES.map((percent) => rounded(histogram.quantile(percent / 100)));
}

/** Without the one that is above all bounds, as in Envoy. */
function buckets(histogram: Histogram, mode: 'cumulative' | 'disjoint'): { readonly bound: number; readonly count: number }[] {
  let total = 0;
  return [...histogram.family.bounds].map((bound, i) => {
    const count = histogram.counts[i]!;
    total += count;
    return { bound, count: mode === 'cumulative' ? total : count };
  });
}

/** The buckets that have anything. */
function details(histogram: Histogram): { readonly low: number; readonly width: number; readonly count: number }[] {
  const { bounds } = histogram.family;
  return [...histogram.counts].flatMap((count, i) => {
    const low = i === 0 ? 0 : bounds[i - 1]!;
    return count === 0 ? [] : [{ low, width: (bounds[i] ?? low) - low, count }];
  });
}

/** As C++ prints it: `300000`, `1.8e+06`. */
function boundText(bound: number): string {
  return bound < 1e6 ? String(bound) : bound.toExponential().replace(/e\+(\d)$/, 'e+0$1');
}

function rounded(value: number | undefined): number | null {
  return value === undefined ? null : Math.round(value * 1000) / 1000;
}
