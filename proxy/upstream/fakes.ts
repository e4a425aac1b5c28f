/** Stand-ins for tests of everything above sockets: requests, answers, flowing bodies and endpoints without a network. */
import { ProxyError } from '../errors.ts';
import { Headers } from '../headers.ts';
import { newRequestInfo } from '../http1/request.ts';
import { calledBack, promised } from '../promised.ts';
import type { Body, BodySink, DownstreamConnection, ProxyRequest, ProxyResponse, RequestInfo, Send, Service } from '../service.ts';
import type { Cluster } from '../../xds/snapshot.ts';
import type { Endpoint, Pool } from './endpoint.ts';

export const fakeConnection: DownstreamConnection = {
  id: 1,
  remoteAddress: '10.1.1.1',
  remotePort: 40_000,
  localAddress: '10.1.1.2',
  localPort: 15_001,
  listener: 'test',
  protocol: 'HTTP/1.1',
  tls: undefined,
};

export function fakeInfo(fields: Partial<RequestInfo> = {}): RequestInfo {
  return { ...newRequestInfo(), ...fields };
}

export function fakeRequest(
  fields: Partial<Omit<ProxyRequest, 'headers'>> & { headers?: Readonly<Record<string, string>> } = {},
): ProxyRequest {
  return {
    connection: fakeConnection,
    method: 'GET',
    scheme: 'http',
    authority: 'app.test',
    path: '/',
    body: undefined,
    upgrade: undefined,
    abort: undefined,
    onInterim: undefined,
    onDone: undefined,
    startMs: 0,
    info: fakeInfo(),
    ...fields,
    headers: Headers.of(fields.headers ?? {}),
  };
}

export function fakeResponse(status = 200, headers: Readonly<Record<string, string>> = {}, body?: Body): ProxyResponse {
  return { status, reason: '', headers: Headers.of(headers), body, contentLength: undefined, tunnel: undefined };
}

/** A body that a test pushes by hand. */
export class FakeBody implements Body {
  readonly length: number | undefined;
  readonly whole = undefined;
  paused = false;
  cancelled: ProxyError | undefined;
  sink: BodySink | undefined;

  constructor(length?: number) {
    this.length = length;
  }

  pipe(sink: BodySink): void {
    if (this.sink !== undefined) throw new Error('a body is piped once');
    this.sink = sink;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  cancel(error: ProxyError): void {
    this.cancelled = error;
  }
}

/** A sink that remembers. */
export class FakeSink implements BodySink {
  text = '';
  ended = false;
  trailers: Headers | undefined;
  failed: ProxyError | undefined;
  /** What `data` answers. */
  room = true;

  data(chunk: Buffer): boolean {
    this.text += chunk.toString('latin1');
    return this.room;
  }

  end(trailers: Headers | undefined): void {
    this.ended = true;
    this.trailers = trailers;
  }

  fail(error: ProxyError): void {
    this.failed = error;
  }
}

/** An endpoint for balancers: no pool behind it. */
export function fakeEndpoint(key: string, fields: Partial<Endpoint> = {}): Endpoint {
  const colon = key.lastIndexOf(':');
  return {
    key,
    address: { host: colon === -1 ? key : key.slice(0, colon), port: colon === -1 ? 80 : Number(key.slice(colon + 1)) },
    hostname: '',
    weight: 1,
    priority: 0,
    locality: { region: '', zone: '', subZone: '' },
    metadata: {},
    health: 'healthy',
    ejectedUntilMs: 0,
    active: 0,
    addedMs: 0,
    latencyMs: 0,
    latencyAtMs: 0,
    ...fields,
  };
}

/** A pool that is nothing but a function. */
export function fakePool(send: Service, drain: () => void = () => undefined): Pool {
  return {
    start: (exchange) => {
      send(exchange.request).then(
        (response) => exchange.answered(response),
        (error: unknown) => exchange.over(ProxyError.from(error)),
      );
    },
    drain,
  };
}

/** A layer of the inner path around a service, as a service. */
export function layered(layer: (next: Send) => Send, next: Service): Service {
  const send = layer(calledBack(next));
  return (request) => promised(send, request);
}

const LIMITS = { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3, trackRemaining: false };

/** An EDS cluster with Envoy's defaults and round robin: no TLS, no health checks, no ejection. */
export function fakeCluster(fields: Partial<Cluster> & { readonly name: string }): Cluster {
  return {
    altStatName: '',
    type: 'EDS',
    connectTimeoutMs: 1000,
    lbPolicy: { name: 'ROUND_ROBIN', type: '', config: {} },
    circuitBreakers: { default: LIMITS, high: LIMITS },
    healthChecks: [],
    tlsMatches: [],
    protocol: 'http1',
    maxRequestsPerConnection: 0,
    idleTimeoutMs: 0,
    dnsRefreshMs: 5000,
    respectDnsTtl: false,
    dnsLookupFamily: 'AUTO',
    panicThresholdPercent: 50,
    localityWeighted: false,
    perConnectionBufferBytesMax: 32_768,
    ...fields,
  };
}
