import { createServer } from 'node:http';
import { expect, test } from '@jest/globals';
import { ManualClock, systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { seededRandom } from '../../lib/random.ts';
import { fakeInfo, fakeRequest, layered } from '../upstream/fakes.ts';
import { idOf, idsOf, spanIdOf, traceIdOf } from './ids.ts';
import { localResponse } from '../http1/error-response.ts';
import { encode, otlpExporter } from './otlp.ts';
import { reportSpan, tracing } from './tracing.ts';
import type { Span } from './tracing.ts';
import type { ProxyRequest } from '../service.ts';
import type { AddressInfo } from 'node:net';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';

function run(
  headers: Record<string, string>,
  options: { export?: boolean; randomShare?: number; overallShare?: number } = {},
): { request: ProxyRequest; spans: Span[] } {
  const spans: Span[] = [];
  const send = (span: Span): void => void spans.push(span);
  const filter = tracing({
    randomShare: options.randomShare ?? 1,
    overallShare: options.overallShare ?? 1,
    random: seededRandom(7),
    kind: 'client',
    export: options.export === false ? undefined : send,
  });
  const request = fakeRequest({
    headers,
    path: '/a?secret=1',
    info: fakeInfo({ routeName: 'reviews', clusterName: 'c', attemptCount: 2 }),
  });
  void layered(filter, (one) => Promise.resolve(localResponse(one, 200, '')))(request);
  reportSpan({ request, response: localResponse(request, 503, ''), startWallMs: 1_000, durationMs: 5 }, 'client', send);
  return { request, spans };
}

test('a W3C context is continued: same trace, our span as the parent of the next', () => {
  const { request, spans } = run({ traceparent: `00-${TRACE}-${SPAN}-01` });

  const sent = request.headers.get('traceparent')!.split('-');
  expect(sent[1]).toBe(TRACE);
  expect(sent[2]).not.toBe(SPAN);
  expect(sent[3]).toBe('01');
  expect(spans).toEqual([
    expect.objectContaining({
      traceId: TRACE,
      parentSpanId: SPAN,
      spanId: sent[2],
      name: 'GET reviews',
      failed: true,
      startWallMs: 1_000,
      endWallMs: 1_005,
    }),
  ]);
  expect(spans[0]!.attributes['url.path']).toBe('/a');
});

test('a caller that does not sample is not sampled, and without an exporter its header passes untouched', () => {
  const header = `00-${TRACE}-${SPAN}-00`;

  expect(run({ traceparent: header }).spans).toEqual([]);
  expect(run({ traceparent: header }).request.headers.get('traceparent')).toBe(header);
  expect(run({ traceparent: `00-${TRACE}-${SPAN}-01` }, { export: false }).request.headers.get('traceparent')).toBe(
    `00-${TRACE}-${SPAN}-01`,
  );
});

test.each([
  '',
  'garbage',
  `00-${'0'.repeat(32)}-${SPAN}-01`,
  `00-${TRACE}-${'0'.repeat(16)}-01`,
  `ff-${TRACE}-${SPAN}-01`,
  `00-${TRACE}-${SPAN}-01-more`,
  `00-${TRACE.toUpperCase()}-${SPAN}-01`,
])('the malformed header %j starts a new trace', (traceparent) => {
  const { request } = run(traceparent === '' ? {} : { traceparent });

  expect(request.headers.get('traceparent')).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
  expect(request.info.traceId).not.toBe(TRACE);
  expect(request.info.parentSpanId).toBe('');
});

test('a later version of the header with more parts is read as far as it is known', () => {
  expect(run({ traceparent: `01-${TRACE}-${SPAN}-01-more` }).request.info.traceId).toBe(TRACE);
});

test('B3 in one header or in several is continued in the same form', () => {
  const single = run({ b3: `${TRACE}-${SPAN}-1` }).request;
  const several = run({ 'x-b3-traceid': SPAN, 'x-b3-spanid': SPAN, 'x-b3-sampled': '1' }).request;

  expect(single.headers.get('b3')).toBe(`${TRACE}-${single.info.spanId}-1-${SPAN}`);
  expect(several.info.traceId).toBe(`${'0'.repeat(16)}${SPAN}`);
  expect(several.headers.get('x-b3-spanid')).toBe(several.info.spanId);
  expect(several.headers.get('x-b3-parentspanid')).toBe(SPAN);
});

test('sampling shares hold: nothing at 0, and the overall share cuts what callers ask for', () => {
  expect(run({}, { randomShare: 0 }).request.headers.get('traceparent')).toMatch(/-00$/);
  expect(run({ traceparent: `00-${TRACE}-${SPAN}-01` }, { overallShare: 0 }).spans).toEqual([]);
});

test('ids have their form and are never zero', () => {
  const { requestLine, traceLine } = idsOf(seededRandom(1));
  expect(requestLine()).toMatch(/^x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\r\n$/);
  expect(new Set(Array.from({ length: 1_000 }, () => idOf(requestLine()))).size).toBe(1_000);
  expect(traceLine(true)).toMatch(/^traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n$/);
  expect(traceLine(false)).toMatch(/-00\r\n$/);
  const line = traceLine(true);
  expect(line).toContain(`00-${traceIdOf(line)}-${spanIdOf(line)}-01`);
  const zero = idsOf(() => 0);
  expect(zero.spanId()).toBe('0000000000000001');
  expect([traceIdOf(zero.traceLine(true)), spanIdOf(zero.traceLine(true))]).toEqual([`${'0'.repeat(31)}1`, `${'0'.repeat(15)}1`]);
});

const span: Span = {
  traceId: TRACE,
  spanId: SPAN,
  parentSpanId: '',
  name: 'GET',
  kind: 'server',
  startWallMs: 1_700_000_000_000.25,
  endWallMs: 1_700_000_000_001,
  attributes: { a: 'b', n: 2 },
  failed: false,
};

test('spans are encoded as OTLP wants them: hex ids, nanoseconds as text, typed attributes', () => {
  const message = JSON.parse(encode([span], { serviceName: 'web', resource: { 'service.instance.id': 'web-1' } })) as {
    resourceSpans: { resource: unknown; scopeSpans: { spans: unknown[] }[] }[];
  };

  expect(message.resourceSpans[0]!.resource).toEqual({
    attributes: [
      { key: 'service.name', value: { stringValue: 'web' } },
      { key: 'service.instance.id', value: { stringValue: 'web-1' } },
    ],
  });
  expect(message.resourceSpans[0]!.scopeSpans[0]!.spans).toEqual([
    {
      traceId: TRACE,
      spanId: SPAN,
      name: 'GET',
      kind: 2,
      startTimeUnixNano: '1700000000000250000',
      endTimeUnixNano: '1700000000001000000',
      attributes: [
        { key: 'a', value: { stringValue: 'b' } },
        { key: 'n', value: { intValue: '2' } },
      ],
      status: {},
    },
  ]);
});

test('spans reach a collector in batches, and one that fails costs them without a word to requests', async () => {
  const bodies: string[] = [];
  let status = 200;
  const collector = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += String(chunk)));
    request.on('end', () => {
      bodies.push(`${request.url} ${JSON.parse(body).resourceSpans[0].scopeSpans[0].spans.length}`);
      response.writeHead(status).end();
    });
  });
  await new Promise<void>((resolve) => void collector.listen(0, '127.0.0.1', resolve));
  const exporter = otlpExporter({
    endpoint: `http://127.0.0.1:${(collector.address() as AddressInfo).port}`,
    serviceName: 'web',
    resource: {},
    headers: {},
    clock: systemClock(),
    log: silentLog,
  });

  for (let i = 0; i < 600; i++) exporter.send(span);
  await exporter.close();
  expect(bodies).toEqual(['/v1/traces 512', '/v1/traces 88']);
  status = 500;
  exporter.send(span);
  await exporter.close();

  expect(exporter.dropped).toBe(1);
  collector.closeAllConnections();
  await new Promise((resolve) => collector.close(resolve));
});

test('a collector that never answers does not grow the queue', () => {
  const exporter = otlpExporter({
    endpoint: 'http://127.0.0.1:9',
    serviceName: 'web',
    resource: {},
    headers: {},
    clock: new ManualClock(),
    log: silentLog,
  });

  for (let i = 0; i < 5_000; i++) exporter.send(span);

  expect(exporter.dropped).toBeGreaterThanOrEqual(5_000 - 2_048 - 512);
});
