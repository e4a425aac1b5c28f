/** The data plane's vocabulary: what a request, a response, a body, a service, a filter and a balancer are. */
import type { ProxyError } from './errors.ts';
import type { BoundMetrics } from './filters/istio-metrics.ts';
import type { Headers } from './headers.ts';
import type { Http1Connection } from './http1/options.ts';
import type { Endpoint } from './upstream/endpoint.ts';
import type { Random } from '../lib/random.ts';

/** A route, a cluster, an endpoint, the whole proxy: one shape. Rejects with `ProxyError` and nothing else. */
export type Service = (request: ProxyRequest) => Promise<ProxyResponse>;

/** Where the outcome of a request goes: exactly one of the two calls, once; it may come before the call that started the work returns. */
export interface Reply {
  answered(response: ProxyResponse): void;
  failed(error: ProxyError): void;
}

/**
 * A service without a promise: how the parts between a route and a connection speak, since a promise and its turn of the job queue for each
 * of them cost more than what they do (docs/decisions/015).
 */
export type Send = (request: ProxyRequest, reply: Reply) => void;

/** What stands around a `Send`; as `Filter`, it runs at push. */
export type Layer = (next: Send) => Send;

/** Runs at push; what it answers runs per request. */
export type Filter = (next: Service) => Service;

/** Runs when membership, weights or health change. `endpoints` are those that may be picked (health and panic already applied). */
export type Balancer = (endpoints: readonly Endpoint[], random: Random) => Picker;

/** Per request: no filtering, no allocation. Undefined = nobody there (503 UH). */
export type Picker = (request: ProxyRequest) => Endpoint | undefined;

/** One request on its way. Mutable on purpose: filters change it in place, nothing is copied per filter. */
export interface ProxyRequest {
  readonly connection: DownstreamConnection;
  method: string;
  /** `http` or `https`, as the client sees it. */
  scheme: string;
  /** Host and optional port as the client named it; never repeated in `headers`. */
  authority: string;
  /** Path and query, normalised: the one string that routing, authorisation and the upstream see. */
  path: string;
  /** Without Host, framing and hop-by-hop fields: the codec takes those off and writes its own. */
  headers: Headers;
  /** Undefined = no body. */
  body: Body | undefined;
  /** Asked-for protocol of an upgrade in lower case (`websocket`), `connect` for CONNECT, else undefined. */
  upgrade: string | undefined;
  /** Ends the work that is under way for this request; the service's promise then rejects with the error. Set by whoever works, cleared when the response head is there. */
  abort: ((error: ProxyError) => void) | undefined;
  /** Relays an interim (1xx) response; undefined where the client cannot take one. */
  onInterim: ((status: number, reason: string, headers: Headers) => void) | undefined;
  /**
   * Called once by the codec when the exchange is over: the last byte of the answer is written, or either side is gone. `info` is complete
   * then (bytes, flags, details). A filter that listens keeps the function that was there and calls it too. Must not throw.
   */
  onDone: ((response: ProxyResponse | undefined, request: ProxyRequest) => void) | undefined;
  /** Clock reading when the head was complete; filters reckon from it instead of reading the clock again. */
  readonly startMs: number;
  /** Observations for logs, metrics, traces and retries. */
  readonly info: RequestInfo;
}

/** What became of a request so far. One object per request, made by the codec. */
export interface RequestInfo {
  requestId: string;
  /** W3C trace id and span id in hex, set by the tracing filter. */
  traceId: string;
  spanId: string;
  parentSpanId: string;
  sampled: boolean;
  virtualHostName: string;
  routeName: string;
  clusterName: string;
  /** Last endpoint tried. */
  endpoint: Endpoint | undefined;
  /** Endpoints tried so far, for retries that avoid them; undefined until a second try. */
  triedEndpoints: Endpoint[] | undefined;
  /** How often the cluster picks again when it got one of `triedEndpoints`; set with them. Default 1. */
  reselectionsMax?: number;
  attemptCount: number;
  /** Envoy response flags, comma separated, empty when all went well. */
  responseFlags: string;
  /** Envoy's RESPONSE_CODE_DETAILS: `via_upstream`, `route_not_found` … */
  responseDetails: string;
  requestBytes: number;
  responseBytes: number;
  /** Clock reading when the last attempt was answered; 0 = not yet. */
  answeredMs: number;
  /** Overall deadline on the clock of `startMs`; 0 = none. */
  deadlineMs: number;
  /** Hash for consistent balancers, set by the route; undefined = none. */
  hash: bigint | undefined;
  /** Free for filters to leave each other notes; undefined until used. */
  filterState: Map<string, unknown> | undefined;
}

export interface ProxyResponse {
  status: number;
  reason: string;
  /** Without framing and hop-by-hop fields. */
  headers: Headers;
  /** Undefined = no body. For an answer to HEAD it is undefined and `contentLength` may be set. */
  body: Body | undefined;
  /** The value of Content-Length where there is no body to count (HEAD, 304). */
  contentLength: number | undefined;
  /** Set on 101 and on a 2xx to CONNECT: the raw connection that the downstream codec joins with its own. */
  tunnel: Tunnel | undefined;
}

/** Bytes on their way from one edge to the other. Flows only after `pipe`; one reader. */
export interface Body {
  /** Length in bytes where framing told it, else undefined. */
  readonly length: number | undefined;
  /** The whole body when all of it was already there with the head: a writer sends it in the same write. Then `pipe` need not be called, and trailers are absent. To ask only whether it is all there, take `isWhole` (http1/body.ts), which makes no buffer. */
  readonly whole: Buffer | undefined;
  /** Starts the flow into `sink`. Called at most once. */
  pipe(sink: BodySink): void;
  /** Holds the flow until `resume`; the source stops reading its socket when its small buffer is full. */
  pause(): void;
  resume(): void;
  /** The reader gives up: the source drops or closes what is left. */
  cancel(error: ProxyError): void;
}

/** Calls come in order: `data`*, then one of `end` or `fail`. Never after `cancel`. */
export interface BodySink {
  /** False = full: the source must be paused; the sink calls `resume` on the body when there is room. */
  data(chunk: Buffer): boolean;
  /**
   * As `data`, for bytes that stand only until it returns; or, when it answers false, until the sink calls `resume`. A sink that has it
   * must copy what it keeps longer; one that has not is given bytes of its own by `data`. Spares the copy of streamed bodies.
   */
  lend?(chunk: Buffer): boolean;
  end(trailers: Headers | undefined): void;
  fail(error: ProxyError): void;
}

/** A raw byte connection after an upgrade. `head` came with the response's last bytes. */
export interface Tunnel {
  readonly socket: import('node:net').Socket;
  readonly head: Buffer;
  /** Tells the owner (pool, in-flight counts) that the tunnel is over. */
  closed(): void;
}

/** The client's side of a connection, one object per connection. */
export interface DownstreamConnection {
  readonly id: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly listener: string;
  readonly protocol: 'HTTP/1.1' | 'HTTP/2';
  /** Undefined on plaintext. */
  readonly tls: PeerTls | undefined;
  /** The metrics filter's own: what it bound to this connection. */
  metrics?: BoundMetrics | undefined;
  /** Set by whoever serves it. */
  hooks?: ConnectionHooks | undefined;
}

/** What the owner of a connection knows and tunnels inside it need. */
export interface ConnectionHooks {
  /** The whole way of a request, in the configuration of its moment. */
  send(request: ProxyRequest, reply: Reply): void;
  /** A connection inside: it is drained with this one, until it is over. */
  servedInside(inside: Http1Connection): void;
  insideOver(inside: Http1Connection): void;
}

export interface PeerTls {
  /** The peer's SPIFFE id from the one URI SAN of its verified certificate; undefined when it sent none. */
  readonly peerUri: string | undefined;
  readonly localUri: string | undefined;
  readonly sni: string | undefined;
  readonly alpn: string | undefined;
  readonly version: string;
  readonly cipher: string;
  /** SHA-256 of the peer's certificate in hex, for x-forwarded-client-cert. */
  readonly peerHash: string | undefined;
  readonly peerSubject: string | undefined;
  /** Epoch milliseconds at which the first of the two certificates ends: a connection must be replaced before. `Infinity` = no certificate. */
  readonly notAfterMs?: number;
}
