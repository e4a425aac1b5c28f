/** Envoy's statistics of one HTTP connection manager: `http.<stat_prefix>.downstream_*`, and those of its router. */
import { envoyScope } from '../../lib/metrics-scope.ts';
import type { Scope } from '../../lib/metrics-scope.ts';
import { ERRORS } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { Http1End } from '../http1/options.ts';
import type { Observer } from './observe.ts';
import type { Counter, Registry } from '../../lib/metrics.ts';

export interface HttpStats {
  /** Counts requests, once more for the listener whose scope is given. */
  readonly observer: (listener: Scope) => Observer;
  readonly connection: HttpConnectionStats;
  /** What the router counts: requests that no filter kept from it, and those that it answered by a direct response or a redirect. */
  readonly routed: Counter;
  readonly answeredDirectly: Counter;
  /** A counter by its name below the prefix. */
  readonly counter: (name: string) => Counter;
}

export interface HttpConnectionStats {
  opened(secure: boolean): void;
  closed(end: Http1End, ageMs: number, secure: boolean): void;
  /** Bytes since the last call for the same connection. */
  bytesMoved(received: number, sent: number): void;
  /** A message was refused before it became a request. */
  rejected(code: ErrorCode): void;
  /** Why this side asks a connection to end. */
  retired(reason: 'idle' | 'age' | 'requests' | 'drain'): void;
  /** The answer was there before the request was. */
  answeredEarly(): void;
  upgraded(): () => void;
}

/** The same handles for the same prefix: several chains of one prefix count together. */
export function httpStats(registry: Registry, statPrefix: string): HttpStats {
  const scope = envoyScope(registry, 'http', `http.${statPrefix}`, { envoy_http_conn_manager_prefix: statPrefix });
  const requests = requestStats(scope);
  return {
    observer: (listener) =>
      observerOf(scope, requests, classes(listener, `http.${statPrefix}.`, { envoy_http_conn_manager_prefix: statPrefix })),
    connection: connectionStats(scope),
    routed: scope.counter('rq_total'),
    answeredDirectly: scope.counter('rq_direct_response'),
    counter: (name) => scope.counter(name),
  };
}

type Answered = (status: number) => void;

/** Answers in all and by class. */
function classes(scope: Scope, dotted: string, tags: Readonly<Record<string, string>>): Answered {
  const name = dotted === '' ? '' : 'http.';
  const completed = scope.counter(`${name}downstream_rq_completed`, tags, `${dotted}downstream_rq_completed`);
  const byClass = [1, 2, 3, 4, 5].map((digit) =>
    scope.counter(`${name}downstream_rq_xx`, { envoy_response_code_class: String(digit), ...tags }, `${dotted}downstream_rq_${digit}xx`),
  );
  return (status) => {
    completed.inc();
    byClass[((status / 100) | 0) - 1]?.inc();
  };
}

interface RequestStats {
  readonly begun: () => void;
  readonly answered: Answered;
}

function requestStats(scope: Scope): RequestStats {
  const total = scope.counter('downstream_rq_total');
  const http1 = scope.counter('downstream_rq_http1_total');
  return {
    begun: () => {
      total.inc();
      http1.inc();
    },
    answered: classes(scope, '', {}),
  };
}

/** What Envoy counts of the answers that did not come from upstream, by RESPONSE_CODE_DETAILS. */
const BY_DETAILS: Readonly<Record<string, string>> = {
  [ERRORS.routeNotFound.details]: 'no_route',
  [ERRORS.clusterNotFound.details]: 'no_cluster',
  [ERRORS.requestTimeout.details]: 'downstream_rq_timeout',
  [ERRORS.streamIdleTimeout.details]: 'downstream_rq_idle_timeout',
  [ERRORS.maxDuration.details]: 'downstream_rq_max_duration_reached',
  [ERRORS.payloadTooLarge.details]: 'downstream_rq_too_large',
  [ERRORS.upgradeFailed.details]: 'downstream_rq_ws_on_non_ws_route',
  [ERRORS.upstreamBodyReset.details]: 'rq_reset_after_downstream_response_started',
};

function observerOf(scope: Scope, { begun, answered }: RequestStats, ofListener: Answered): Observer {
  const active = scope.gauge('downstream_rq_active');
  const timeMs = scope.histogram('downstream_rq_time');
  const reset = scope.counter('downstream_rq_rx_reset');
  const byDetails = new Map(Object.entries(BY_DETAILS).map(([details, name]) => [details, scope.counter(name)]));
  return {
    started: () => {
      begun();
      active.inc();
    },
    done: ({ request, response, durationMs }) => {
      const { info } = request;
      active.dec();
      timeMs.record(durationMs);
      if (info.responseDetails !== 'via_upstream') byDetails.get(info.responseDetails)?.inc();
      if (response === undefined) {
        reset.inc();
        return;
      }
      // Envoy leaves answers to health checks out of these, so that an error rate is about real requests.
      if (info.filterState?.get('healthCheck') === true) return;
      answered(response.status);
      ofListener(response.status);
    },
  };
}

function connectionStats(scope: Scope): HttpConnectionStats {
  const counter = (name: string): Counter => scope.counter(`downstream_cx_${name}`);
  const total = [counter('total'), counter('http1_total')];
  const active = [scope.gauge('downstream_cx_active'), scope.gauge('downstream_cx_http1_active')];
  const [secureTotal, secureActive] = [counter('ssl_total'), scope.gauge('downstream_cx_ssl_active')];
  const [destroyed, destroyedBusy] = [counter('destroy'), counter('destroy_active_rq')];
  const by = { local: counter('destroy_local'), remote: counter('destroy_remote') };
  const busyBy = { local: counter('destroy_local_active_rq'), remote: counter('destroy_remote_active_rq') };
  const [received, sent] = [counter('rx_bytes_total'), counter('tx_bytes_total')];
  const lengthMs = scope.histogram('downstream_cx_length_ms');
  const retired = {
    idle: counter('idle_timeout'),
    age: counter('max_duration_reached'),
    requests: counter('max_requests_reached'),
    drain: counter('drain_close'),
  };
  const protocol = counter('protocol_error');
  const headTooSlow = scope.counter('downstream_rq_header_timeout');
  const early = scope.counter('downstream_rq_response_before_rq_complete');
  const [upgrades, upgradesActive] = [counter('upgrades_total'), scope.gauge('downstream_cx_upgrades_active')];
  return {
    opened: (secure) => {
      for (const one of total) one.inc();
      for (const one of active) one.inc();
      if (!secure) return;
      secureTotal.inc();
      secureActive.inc();
    },
    closed: (end, ageMs, secure) => {
      for (const one of active) one.dec();
      if (secure) secureActive.dec();
      destroyed.inc();
      by[end.by].inc();
      if (end.busy) {
        destroyedBusy.inc();
        busyBy[end.by].inc();
      }
      lengthMs.record(ageMs);
    },
    bytesMoved: (bytesReceived, bytesSent) => {
      received.add(bytesReceived);
      sent.add(bytesSent);
    },
    rejected: (code) => {
      // A body that is too slow is told by the request's own end.
      if (code === 'requestHeaderTimeout') headTooSlow.inc();
      else if (code !== 'requestTimeout') protocol.inc();
    },
    retired: (reason) => retired[reason].inc(),
    answeredEarly: () => early.inc(),
    upgraded: () => {
      upgrades.inc();
      upgradesActive.inc();
      return () => upgradesActive.dec();
    },
  };
}
