/** Faults on purpose: delays and aborts for a share of requests (envoy.extensions.filters.http.fault.v3). */
import { ProxyError } from '../errors.ts';
import { sleep } from '../../lib/clock.ts';
import { REASONS, errorResponse } from '../http1/error-response.ts';
import { compileHeaderMatcher } from './matchers.ts';
import type { ConfigReader } from './config.ts';
import type { FilterDeps, FilterEntry } from './filter.ts';
import type { Filter, ProxyRequest, ProxyResponse } from '../service.ts';

export const fault: FilterEntry = {
  type: 'envoy.extensions.filters.http.fault.v3.HTTPFault',
  names: ['envoy.filters.http.fault', 'envoy.fault'],
  build: buildFault,
};

const DELAY_MS_MAX = 3_600_000;

function buildFault(config: ConfigReader, deps: FilterDeps): Filter | undefined {
  const delay = config.object('delay');
  const abort = config.object('abort');
  if (config.has('responseRateLimit')) config.fail('responseRateLimit', 'limiting the rate of responses is not supported');
  if (delay === undefined && abort === undefined) return undefined;
  const delayMs = delay?.durationMs('fixedDelay', 0) ?? 0;
  if (delayMs < 0 || delayMs > DELAY_MS_MAX) delay!.fail('fixedDelay', `must be from 0s to ${DELAY_MS_MAX / 1000}s`);
  const delayShare = delay?.fraction('percentage', 0) ?? 0;
  const abortShare = abort?.fraction('percentage', 0) ?? 0;
  const status = abort?.number('httpStatus', 0) ?? 0;
  const delayByHeader = delay?.has('headerDelay') === true;
  const abortByHeader = abort?.has('headerAbort') === true;
  const grpcStatus = abort?.has('grpcStatus') === true ? abort.number('grpcStatus', 14) : undefined;
  if (abort !== undefined && grpcStatus === undefined && !abortByHeader && (status < 200 || status > 599))
    abort.fail('httpStatus', 'must be from 200 to 599');
  const headers = config.objects('headers').map((one) => compileHeaderMatcher(one));
  const cluster = config.string('upstreamCluster');
  const activeMax = config.number('maxActiveFaults', Number.POSITIVE_INFINITY);
  const delaysInjected = deps.counter('fault.delays_injected');
  const abortsInjected = deps.counter('fault.aborts_injected');
  let active = 0;

  const abortOrGoOn = (request: ProxyRequest, next: (request: ProxyRequest) => Promise<ProxyResponse>): Promise<ProxyResponse> => {
    if (abortShare === 0 || deps.random() >= abortShare) return next(request);
    const asked = abortByHeader ? numberIn(request, 'x-envoy-fault-abort-request', 200, 599) : status;
    if (asked === undefined) return next(request);
    abortsInjected();
    return Promise.resolve(abortResponse(request, asked, grpcStatus));
  };
  return (next) => (request) => {
    if (cluster !== '' && request.info.clusterName !== cluster) return next(request);
    if (headers.length > 0 && !headers.every((test) => test(request))) return next(request);
    if (delayShare === 0 || active >= activeMax || deps.random() >= delayShare) return abortOrGoOn(request, next);
    const waitMs = delayByHeader ? numberIn(request, 'x-envoy-fault-delay-request', 0, DELAY_MS_MAX) : delayMs;
    if (waitMs === undefined) return abortOrGoOn(request, next);
    delaysInjected();
    active++;
    addFlag(request, 'DI');
    return waitFor(request, waitMs, deps)
      .finally(() => active--)
      .then(() => abortOrGoOn(request, next));
  };
}

/** What the caller asks for in a header; undefined = nothing that can be. */
function numberIn(request: ProxyRequest, header: string, min: number, max: number): number | undefined {
  const text = request.headers.get(header);
  if (text === undefined || !/^\d{1,7}$/.test(text)) return undefined;
  const value = Number(text);
  return value >= min && value <= max ? value : undefined;
}

/** A pause that ends early, with the error, when the client goes away. */
function waitFor(request: ProxyRequest, delayMs: number, deps: FilterDeps): Promise<void> {
  const stop = new AbortController();
  let failure: ProxyError | undefined;
  request.abort = (error) => {
    failure = error;
    stop.abort();
  };
  return sleep(deps.clock, delayMs, stop.signal).then(() => {
    request.abort = undefined;
    if (failure !== undefined) throw failure;
  });
}

function abortResponse(request: ProxyRequest, status: number, grpcStatus: number | undefined): ProxyResponse {
  const response = errorResponse(request, new ProxyError('faultAbort'));
  if (response.headers.has('grpc-status')) {
    response.headers.set('grpc-status', String(grpcStatus ?? grpcStatusOf(status)));
  } else {
    response.status = grpcStatus === undefined ? status : 200;
    response.reason = REASONS[response.status] ?? '';
    if (grpcStatus !== undefined) response.headers.append('grpc-status', String(grpcStatus));
  }
  return response;
}

/** gRPC's mapping of HTTP statuses (http-grpc-status-mapping). */
function grpcStatusOf(status: number): number {
  return { 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14 }[status] ?? 2;
}

function addFlag(request: ProxyRequest, flag: string): void {
  request.info.responseFlags = request.info.responseFlags === '' ? flag : `${request.info.responseFlags},${flag}`;
}
