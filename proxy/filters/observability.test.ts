import { mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { renderPrometheus } from '../../lib/metrics-text.ts';
import { fakeConnection, fakeEndpoint, fakeInfo, fakeRequest, layered } from '../upstream/fakes.ts';
import { compileAccessLogs } from './access-log.ts';
import { istioMetrics } from './istio-metrics.ts';
import { createLineWriter } from './line-writer.ts';
import { localResponse } from '../http1/error-response.ts';
import { observe } from './observe.ts';
import { serviceOfCluster, workloadOfEndpoint, workloadOfNode, workloadOfPeer } from './workload.ts';
import type { Exchange } from './format.ts';
import type { LineWriter } from './line-writer.ts';
import type { AccessLogConfig, Cluster, JsonObject } from '../../xds/snapshot.ts';

const FILE = 'envoy.extensions.access_loggers.file.v3.FileAccessLog';

function exchangeOf(status: number, change: { flags?: string; durationMs?: number; headers?: Record<string, string> } = {}): Exchange {
  const request = fakeRequest({
    info: fakeInfo({ responseFlags: change.flags ?? '', clusterName: 'outbound|80||reviews.default.svc.cluster.local' }),
    headers: change.headers ?? {},
  });
  return { request, response: localResponse(request, status, ''), durationMs: change.durationMs ?? 1, startWallMs: 0 };
}

function logged(filter: JsonObject | undefined, exchanges: Exchange[]): string[] {
  const lines: string[] = [];
  const writer: LineWriter = {
    write: (line) => void lines.push(line),
    reopen: () => undefined,
    close: () => Promise.resolve(),
    dropped: 0,
  };
  const config: AccessLogConfig = {
    name: 'file',
    type: FILE,
    config: { path: 'x', logFormat: { textFormatSource: { inlineString: '%RESPONSE_CODE%' } } },
    ...(filter === undefined ? {} : { filter }),
  };
  const [observer] = compileAccessLogs([config], 'listener', { writer: () => writer, random: () => 0.5, log: silentLog });
  for (const exchange of exchanges) observer!.done(exchange);
  return lines;
}

test.each<[string, JsonObject, string[]]>([
  ['status codes', { statusCodeFilter: { comparison: { op: 'GE', value: { defaultValue: 400 } } } }, ['404', '503']],
  ['durations', { durationFilter: { comparison: { op: 'GE', value: { defaultValue: 10 } } } }, ['503']],
  ['flags', { responseFlagFilter: { flags: ['UF'] } }, ['503']],
  ['headers', { headerFilter: { header: { name: 'x-debug', presentMatch: true } } }, ['404']],
  [
    'either of two',
    { orFilter: { filters: [{ responseFlagFilter: {} }, { headerFilter: { header: { name: 'x-debug' } } }] } },
    ['404', '503'],
  ],
  ['both of two', { andFilter: { filters: [{ responseFlagFilter: {} }, { headerFilter: { header: { name: 'x-debug' } } }] } }, []],
  ['a share', { runtimeFilter: { percentSampled: { numerator: 40 } } }, []],
])('a log can be filtered by %s', (_name, filter, expected) => {
  const exchanges = [exchangeOf(200), exchangeOf(404, { headers: { 'x-debug': '1' } }), exchangeOf(503, { flags: 'UF', durationMs: 20 })];

  expect(logged(filter, exchanges)).toEqual(expected);
});

test('logs for other services are left out, unknown ones are refused', () => {
  const deps = {
    writer: () => createLineWriter('/dev/stdout', { clock: new ManualClock(), log: silentLog, flushMs: 1 }),
    random: () => 0,
    log: silentLog,
  };
  const of = (type: string): AccessLogConfig => ({ name: 'x', type, config: {} });

  expect(compileAccessLogs([of('envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig')], 'l', deps)).toEqual([]);
  expect(() => compileAccessLogs([of('a.b.C')], 'l', deps)).toThrow(
    /l\.access_log\[0\]: unknown access log "a\.b\.C"; there are .*FileAccessLog/,
  );
});

test('lines are written together after the flush time, survive a rotation, and are all there at the end', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-lines-'));
  const path = join(directory, 'a.log');
  const clock = new ManualClock();
  const writer = createLineWriter(path, { clock, log: silentLog, flushMs: 100 });

  writer.write('one\n');
  writer.write('two\n');
  clock.advance(100);
  await until(() => read(path) === 'one\ntwo\n');
  renameSync(path, `${path}.1`);
  writer.write('three\n');
  writer.reopen();
  writer.write('four\n');
  await writer.close();

  await until(() => read(`${path}.1`) === 'one\ntwo\nthree\n' && read(path) === 'four\n');
  expect(clock.pending).toBe(0);
  expect(writer.dropped).toBe(0);
  rmSync(directory, { recursive: true });
});

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

async function until(test: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !test(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(test()).toBe(true);
}

const self = workloadOfNode({
  id: 'web-1.default',
  cluster: 'web',
  metadata: { NAMESPACE: 'default', WORKLOAD_NAME: 'web', LABELS: { app: 'web', version: 'v1' } },
});
const cluster = {
  name: 'c',
  tlsMatches: [{ name: 't', match: { tlsMode: 'istio' }, tls: {} }],
  metadata: { istio: { services: [{ host: 'reviews.default.svc.cluster.local', name: 'reviews', namespace: 'default' }] } },
} as unknown as Cluster;

function text(registry: ReturnType<typeof createRegistry>): string {
  return [...renderPrometheus(registry)].join('');
}

test('the outbound side reports who was chosen, with every label that Kiali reads', () => {
  const registry = createRegistry();
  const observer = istioMetrics({ registry, reporter: 'source', self, clusterOf: () => cluster });
  const endpoint = fakeEndpoint('10.0.0.7:15006', {
    metadata: { istio: { workload: 'reviews-v1;default;reviews;v1;Kubernetes' }, 'envoy.transport_socket_match': { tlsMode: 'istio' } },
  });
  const exchange = exchangeOf(200);
  exchange.request.info.endpoint = endpoint;

  observer.done(exchange);
  observer.done(exchange);

  expect(text(registry)).toContain(
    'istio_requests_total{reporter="source",source_workload="web",source_canonical_service="web",source_canonical_revision="v1",source_workload_namespace="default",' +
      'source_principal="unknown",source_app="web",source_version="v1",source_cluster="unknown",destination_workload="reviews-v1",destination_workload_namespace="default",' +
      'destination_principal="unknown",destination_app="reviews",destination_version="v1",destination_service="reviews.default.svc.cluster.local",destination_canonical_service="reviews",' +
      'destination_canonical_revision="v1",destination_service_name="reviews",destination_service_namespace="default",destination_cluster="Kubernetes",request_protocol="http",' +
      'response_code="200",grpc_response_status="",response_flags="-",connection_security_policy="mutual_tls"} 2\n',
  );
});

test('the inbound side believes the certificate alone, and codes and flags are labels of their own', () => {
  const registry = createRegistry();
  const observer = istioMetrics({ registry, reporter: 'destination', self, clusterOf: () => undefined });
  const tls = {
    peerUri: 'spiffe://mesh.test/ns/shop/sa/cart',
    localUri: 'spiffe://mesh.test/ns/default/sa/web',
    sni: undefined,
    alpn: undefined,
    version: '',
    cipher: '',
    peerHash: 'ab',
    peerSubject: undefined,
  };
  const request = fakeRequest({
    connection: { ...fakeConnection, tls },
    info: fakeInfo({ clusterName: 'inbound|80||', responseFlags: 'UF' }),
  });

  observer.done({ request, response: localResponse(request, 503, ''), durationMs: 3, startWallMs: 0 });

  expect(text(registry)).toMatch(
    /istio_requests_total\{reporter="destination",source_workload="cart",.*source_workload_namespace="shop",source_principal="spiffe:\/\/mesh\.test\/ns\/shop\/sa\/cart".*response_code="503".*response_flags="UF",connection_security_policy="mutual_tls"\} 1/,
  );
  expect(text(registry)).toContain('istio_request_duration_milliseconds_count{');
});

test('series that expired are bound anew', () => {
  const registry = createRegistry();
  const observer = istioMetrics({ registry, reporter: 'source', self, clusterOf: () => undefined });
  const exchange = exchangeOf(200);
  observer.done(exchange);
  registry.expire(0, 10);
  registry.expire(100, 10);
  expect(text(registry)).not.toContain('istio_requests_total{');

  observer.done(exchange);

  expect(text(registry)).toMatch(/istio_requests_total\{.*\} 1\n/);
});

test('workloads are read from what each side can know', () => {
  expect(workloadOfPeer('spiffe://a/ns/n/sa/s')).toMatchObject({ workload: 's', namespace: 'n' });
  expect(workloadOfPeer('https://not.spiffe/x')).toMatchObject({ workload: 'unknown', principal: 'https://not.spiffe/x' });
  expect(workloadOfPeer(undefined).principal).toBe('unknown');
  expect(workloadOfEndpoint({ filterMetadata: { istio: { workload: 'w;n;;;' } } }, undefined)).toMatchObject({
    workload: 'w',
    canonicalService: 'unknown',
    canonicalRevision: 'latest',
  });
  expect(serviceOfCluster('outbound|80||a.b.svc', undefined)).toEqual({ host: 'a.b.svc', name: 'a', namespace: 'b' });
  expect(serviceOfCluster('plain', undefined)).toEqual({ host: 'plain', name: 'plain', namespace: 'unknown' });
});

test('an observer hears of the end once, after those that were there before it', async () => {
  const heard: string[] = [];
  const clock = new ManualClock();
  const filter = observe(
    [{ started: () => heard.push('start'), done: ({ durationMs }) => heard.push(`done after ${durationMs}`) }],
    clock,
  )!;
  const request = fakeRequest({ onDone: () => heard.push('codec') });

  const response = await layered(filter, (one) => Promise.resolve(localResponse(one, 200, '')))(request);
  clock.advance(7);
  request.onDone!(response, request);

  expect(heard).toEqual(['start', 'codec', 'done after 7']);
  expect(observe([], clock)).toBeUndefined();
});

test('a small answer is over when it begins; a request that failed after an earlier answer is not', () => {
  const lasted: number[] = [];
  const clock = new ManualClock();
  const layer = observe([{ done: ({ durationMs }) => lasted.push(durationMs) }], clock)!;
  clock.advance(100);
  for (const responseDetails of ['via_upstream', 'upstream_reset']) {
    const request = fakeRequest({ info: fakeInfo({ answeredMs: 5, responseDetails }) });
    layer(() => undefined)(request, { answered: () => undefined, failed: () => undefined });
    request.onDone!(localResponse(request, 503, ''), request);
  }

  expect(lasted).toEqual([5, 100]);
});
