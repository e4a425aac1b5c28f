/** A token bucket in this process (envoy.extensions.filters.http.local_ratelimit.v3). */
import { http } from '../../lib/on-demand.ts';
import { ConfigError, ProxyError } from '../errors.ts';
import { errorResponse, localResponse } from '../http1/error-response.ts';
import { compileHeaderOption } from './header-mutation.ts';
import type { ConfigReader } from './config.ts';
import type { FilterDeps, FilterEntry } from './filter.ts';
import type { Filter } from '../service.ts';

export const localRateLimit: FilterEntry = {
  type: 'envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit',
  names: ['envoy.filters.http.local_ratelimit'],
  build: buildLocalRateLimit,
};

/** Fills `perFill` tokens each `fillMs`, up to `max`. Reckoned when asked: there is no timer. */
export class TokenBucket {
  readonly #max: number;
  readonly #perFill: number;
  readonly #fillMs: number;
  #tokens: number;
  #filledMs: number;

  constructor(options: { max: number; perFill: number; fillMs: number; nowMs: number }) {
    this.#max = options.max;
    this.#perFill = options.perFill;
    this.#fillMs = options.fillMs;
    this.#tokens = options.max;
    this.#filledMs = options.nowMs;
  }

  take(nowMs: number): boolean {
    const fills = Math.floor((nowMs - this.#filledMs) / this.#fillMs);
    if (fills > 0) {
      this.#filledMs += fills * this.#fillMs;
      this.#tokens = Math.min(this.#max, this.#tokens + fills * this.#perFill);
    }
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  get remaining(): number {
    return this.#tokens;
  }

  msToNextFill(nowMs: number): number {
    return Math.max(0, this.#filledMs + this.#fillMs - nowMs);
  }
}

function buildLocalRateLimit(config: ConfigReader, deps: FilterDeps): Filter | undefined {
  if (config.has('descriptors')) config.fail('descriptors', 'descriptors are not supported; use one token bucket per route');
  for (const name of ['localRateLimitPerDownstreamConnection', 'localClusterRateLimit', 'requestHeadersToAddWhenNotEnforced'])
    if (config.has(name)) config.fail(name, 'is not supported');
  const settings = config.object('tokenBucket');
  // Envoy: without a bucket the filter is off here and waits for routes to bring one.
  if (settings === undefined) return undefined;
  const max = settings.number('maxTokens', 0);
  const perFill = settings.number('tokensPerFill', 1);
  const fillMs = settings.durationMs('fillInterval', 0);
  if (!(max >= 1)) settings.fail('maxTokens', 'must be at least 1');
  if (fillMs < 50) throw new ConfigError(`${settings.path}.fill_interval`, `must be at least 50 ms, received ${fillMs} ms`);
  const bucket = new TokenBucket({ max, perFill, fillMs, nowMs: deps.clock.now() });
  const enabledShare = config.fraction('filterEnabled', 0);
  const enforcedShare = config.fraction('filterEnforced', 0);
  const status = statusOf(config.object('status'));
  const added = config.objects('responseHeadersToAdd').map(compileHeaderOption);
  const headersOfLimit = config.oneOf('enableXRatelimitHeaders', ['OFF', 'DRAFT_VERSION_03'] as const, 'OFF') === 'DRAFT_VERSION_03';
  const prefix = `${config.string('statPrefix')}.http_local_rate_limit`;
  const count = (name: string): (() => void) => deps.counterAt(`${prefix}.${name}`);
  const [enabled, ok, limited, enforced] = [count('enabled'), count('ok'), count('rate_limited'), count('enforced')];
  return (next) => (request) => {
    if (enabledShare < 1 && deps.random() >= enabledShare) return next(request);
    enabled();
    if (bucket.take(request.startMs)) {
      ok();
      return next(request);
    }
    limited();
    if (enforcedShare < 1 && deps.random() >= enforcedShare) return next(request);
    enforced();
    const response = errorResponse(request, new ProxyError('rateLimited'));
    if (headersOfLimit) {
      response.headers.append('x-ratelimit-limit', String(max));
      response.headers.append('x-ratelimit-remaining', String(Math.floor(bucket.remaining)));
      response.headers.append('x-ratelimit-reset', String(Math.ceil(bucket.msToNextFill(request.startMs) / 1000)));
    }
    const answer =
      response.status === 429 && status !== 429
        ? { ...localResponse(request, status, 'local_rate_limited'), headers: response.headers }
        : response;
    for (const add of added) add(answer.headers, { request, response: answer, startWallMs: 0, durationMs: 0 });
    return Promise.resolve(answer);
  };
}

/** Envoy's StatusCode is spelled as a name; what is no error is taken as 429. */
function statusOf(config: ConfigReader | undefined): number {
  const raw = config?.raw('code');
  if (config === undefined || raw === undefined) return 429;
  const { STATUS_CODES } = http();
  const found =
    typeof raw === 'string'
      ? Number(Object.keys(STATUS_CODES).find((code) => STATUS_CODES[code]!.replaceAll(/[^A-Za-z]/g, '') === raw))
      : config.number('code', 429);
  if (!Number.isInteger(found)) return config.fail('code', 'must be the name of a status, such as ServiceUnavailable');
  return found < 400 ? 429 : found;
}
