/** `/stats` and `/stats/prometheus`: every counter, gauge and histogram. */
import { inTurns, renderPrometheus, renderStats, renderStatsJson } from '../../lib/metrics-text.ts';
import { searchPattern, text } from './endpoint.ts';
import type { AdminContext, AdminEndpoint, AdminRequest, AdminResponse } from './endpoint.ts';
import type { StatsFilter } from '../../lib/metrics-text.ts';

export const stats: AdminEndpoint = {
  path: '/stats',
  help: 'print server stats (filter=REGEX, usedonly, format=text|json|prometheus)',
  mutates: false,
  handle: (request, context) => {
    const format = request.query.get('format') ?? 'text';
    if (format === 'prometheus') return prometheus(request, context);
    const filter = statsFilter(request);
    if (typeof filter === 'string') return text(filter, 400);
    context.refreshStats();
    if (format === 'text') return text(renderStats(context.registry, filter));
    if (format === 'json') return { status: 200, contentType: 'application/json', body: renderStatsJson(context.registry, filter) };
    return text('usage: /stats?format=(text|json|prometheus)\n', 400);
  },
};

export const statsPrometheus: AdminEndpoint = {
  path: '/stats/prometheus',
  help: 'print server stats in prometheus format (filter=REGEX, usedonly)',
  mutates: false,
  handle: prometheus,
};

function prometheus(request: AdminRequest, context: AdminContext): AdminResponse {
  const filter = statsFilter(request);
  if (typeof filter === 'string') return text(filter, 400);
  return {
    status: 200,
    contentType: 'text/plain; version=0.0.4; charset=utf-8',
    body: inTurns(renderPrometheus(context.registry, filter)),
  };
}

function statsFilter(request: AdminRequest): StatsFilter | string {
  const matches = searchPattern(request.query.get('filter'));
  if (typeof matches === 'string') return `Invalid re2 regex: ${matches}\n`;
  return { usedOnly: request.query.has('usedonly'), ...(matches === undefined ? {} : { matches }) };
}
