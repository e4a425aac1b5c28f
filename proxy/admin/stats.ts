/** `/stats` and `/stats/prometheus`: every counter, gauge and histogram. */
import { HISTOGRAM_MODES } from '../../lib/metrics-histograms.ts';
import { inTurns, renderPrometheus, renderStats, renderStatsJson } from '../../lib/metrics-text.ts';
import { searchPattern, text } from './endpoint.ts';
import type { AdminContext, AdminEndpoint, AdminRequest, AdminResponse } from './endpoint.ts';
import type { MetricKind } from '../../lib/metrics.ts';
import type { HistogramMode } from '../../lib/metrics-histograms.ts';
import type { StatsFilter } from '../../lib/metrics-text.ts';

export const stats: AdminEndpoint = {
  path: '/stats',
  help: 'print server stats (filter=REGEX, invert_filter, usedonly, type=All|Counters|Gauges|Histograms, histogram_buckets=cumulative|disjoint|detailed|summary, format=text|json|prometheus)',
  mutates: false,
  handle: (request, context) => {
    const format = request.query.get('format') ?? 'text';
    if (format === 'prometheus') return prometheus(request, context);
    const filter = statsFilter(request);
    if (typeof filter === 'string') return text(filter, 400);
    context.refreshStats();
    if (format === 'text') return text(renderStats(context.registry, filter));
    if (format === 'json') return { status: 200, contentType: 'application/json', body: renderStatsJson(context.registry, filter) };
    return text('usage: /stats?format=(json|prometheus|text)\n\n', 400);
  },
};

export const statsPrometheus: AdminEndpoint = {
  path: '/stats/prometheus',
  help: 'print server stats in prometheus format (filter=REGEX, invert_filter, usedonly, type, histogram_buckets=cumulative|summary)',
  mutates: false,
  handle: prometheus,
};

function prometheus(request: AdminRequest, context: AdminContext): AdminResponse {
  const filter = statsFilter(request);
  if (typeof filter === 'string') return text(filter, 400);
  context.refreshStats();
  return {
    status: 200,
    contentType: 'text/plain; version=0.0.4; charset=utf-8',
    body: inTurns(renderPrometheus(context.registry, filter)),
  };
}

/** By Envoy's word; undefined = all. There are no text read-outs here. */
const KINDS: Readonly<Record<string, MetricKind | 'none' | undefined>> = {
  All: undefined,
  Counters: 'counter',
  Gauges: 'gauge',
  Histograms: 'histogram',
  TextReadouts: 'none',
};

/** What the query asks for, or a sentence about what is wrong with it. */
function statsFilter({ query }: AdminRequest): StatsFilter | string {
  const matches = searchPattern(query.get('filter'));
  if (typeof matches === 'string') return `Invalid re2 regex: ${matches}\n`;
  const type = query.get('type') ?? 'All';
  if (!Object.hasOwn(KINDS, type)) return 'invalid &type= param';
  const buckets = query.get('histogram_buckets');
  if (buckets !== null && !isHistogramMode(buckets)) return `usage: /stats?histogram_buckets=(${HISTOGRAM_MODES.join('|')})\n`;
  const kind = KINDS[type];
  let accepts = matches;
  if (kind === 'none') accepts = () => false;
  else if (matches !== undefined && query.has('invert_filter')) accepts = (name) => !matches(name);
  return {
    usedOnly: query.has('usedonly'),
    ...(accepts === undefined ? {} : { matches: accepts }),
    ...(kind === undefined || kind === 'none' ? {} : { kind }),
    ...(buckets === null ? {} : { histograms: buckets }),
  };
}

function isHistogramMode(word: string): word is HistogramMode {
  return (HISTOGRAM_MODES as readonly string[]).includes(word);
}
