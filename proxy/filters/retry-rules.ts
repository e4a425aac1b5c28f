/** What may be retried and when: Envoy's retry_on words over answers and errors, and the back-off between attempts. */
import type { Random } from '../../lib/random.ts';
import type { RetryPolicy } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import type { ProxyError } from '../errors.ts';
import { compileHeaderMatch } from '../router/match.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import { IDEMPOTENT } from '../upstream/exchange.ts';

/** One bit per word. `non-idempotent` is ours: it lets the broad words cover POST and PATCH too. */
const WORDS = {
  '5xx': 1,
  'gateway-error': 2,
  reset: 4,
  'reset-before-request': 8,
  'connect-failure': 16,
  'refused-stream': 32,
  'retriable-4xx': 64,
  'retriable-status-codes': 128,
  'retriable-headers': 256,
  'envoy-ratelimited': 512,
  cancelled: 1024,
  'deadline-exceeded': 2048,
  internal: 4096,
  'resource-exhausted': 8192,
  unavailable: 16_384,
  'non-idempotent': 32_768,
  // HTTP/3 is not spoken here, so there is nothing that this word could allow.
  'http3-post-connect-failure': 0,
} as const satisfies Record<string, number>;

export const RETRY_WORDS: readonly string[] = Object.keys(WORDS);

/** gRPC status code to the word that covers it. */
const GRPC_WORDS: Readonly<Record<string, number>> = {
  '1': WORDS.cancelled,
  '4': WORDS['deadline-exceeded'],
  '8': WORDS['resource-exhausted'],
  '13': WORDS.internal,
  '14': WORDS.unavailable,
};
const ANY_GRPC = WORDS.cancelled | WORDS['deadline-exceeded'] | WORDS['resource-exhausted'] | WORDS.internal | WORDS.unavailable;

/** A policy, compiled. */
export interface RetryRules {
  readonly policy: RetryPolicy;
  readonly words: number;
  readonly codes: ReadonlySet<number>;
  readonly headers: readonly ((response: ProxyResponse) => boolean)[];
}

/** Reads a policy. Throws `ConfigError` for a word that nobody knows. */
export function compileRetryRules(policy: RetryPolicy, path: string): RetryRules {
  let words = 0;
  for (const word of policy.retryOn) {
    if (!Object.hasOwn(WORDS, word)) {
      throw new ConfigError(`${path}.retry_on`, `unknown word ${JSON.stringify(word)}; there are ${RETRY_WORDS.join(', ')}`);
    }
    words |= WORDS[word as keyof typeof WORDS];
  }
  const headers = policy.retriableHeaders.map((match, i) => {
    const test = compileHeaderMatch(match, `${path}.retriable_headers[${i}]`);
    const name = match.name.toLowerCase();
    return (response: ProxyResponse) => test(name === ':status' ? String(response.status) : response.headers.joined(name));
  });
  return { policy, words, codes: new Set(policy.retriableStatusCodes), headers };
}

/** May this answer be thrown away and the request sent again? */
export function retriesResponse(rules: RetryRules, request: ProxyRequest, response: ProxyResponse): boolean {
  const { words } = rules;
  const { status, headers } = response;
  if (status >= 400 && headers.has('x-envoy-ratelimited')) return (words & WORDS['envoy-ratelimited']) !== 0;
  if (status >= 500 && (words & WORDS['5xx']) !== 0 && repeatable(rules, request)) return true;
  if (status >= 502 && status <= 504 && (words & WORDS['gateway-error']) !== 0 && repeatable(rules, request)) return true;
  if (status === 409 && (words & WORDS['retriable-4xx']) !== 0) return true;
  if ((words & WORDS['retriable-status-codes']) !== 0 && rules.codes.has(status)) return true;
  if ((words & WORDS['retriable-headers']) !== 0 && rules.headers.some((matches) => matches(response))) return true;
  if ((words & ANY_GRPC) === 0) return false;
  // Only a trailers-only answer has its status here, and only that one has not begun to reach the client.
  const grpcStatus = headers.get('grpc-status');
  return grpcStatus !== undefined && (words & (GRPC_WORDS[grpcStatus] ?? 0)) !== 0;
}

/** May a request that failed without an answer be sent again? */
export function retriesError(rules: RetryRules, request: ProxyRequest, error: ProxyError): boolean {
  const { retry, retryOn } = error.row;
  if (retry === 'never') return false;
  const broad = WORDS['5xx'] | WORDS['gateway-error'] | WORDS.reset;
  if (retry === 'always') {
    const own = retryOn === 'connect-failure' ? WORDS['connect-failure'] : WORDS['refused-stream'];
    return (rules.words & (broad | WORDS['reset-before-request'] | own)) !== 0;
  }
  return (rules.words & broad) !== 0 && repeatable(rules, request);
}

/**
 * The upstream may have worked on the request: only what may happen twice is sent again. That is an idempotent method, a request whose client
 * gave it an idempotency key, or one on a route whose policy says `non-idempotent`.
 */
function repeatable(rules: RetryRules, request: ProxyRequest): boolean {
  return IDEMPOTENT.has(request.method) || (rules.words & WORDS['non-idempotent']) !== 0 || request.headers.has('idempotency-key');
}

/** Full jitter: anywhere in [0, base × (2^n − 1)) for the n-th retry, the bound capped at the policy's maximum (rule T5). */
export function backOffMs(policy: RetryPolicy, retryNumber: number, random: Random): number {
  return random() * Math.min(policy.backOffMaxMs, policy.backOffBaseMs * (2 ** Math.min(retryNumber, 30) - 1));
}

/** What the answer itself asks for (`Retry-After` and the like), stretched by up to half so that callers spread; undefined = nothing usable (rule T7). */
export function askedBackOffMs(policy: RetryPolicy, response: ProxyResponse, wallMs: number, random: Random): number | undefined {
  for (const { name, format } of policy.resetHeaders) {
    const value = response.headers.get(name.toLowerCase());
    if (value === undefined || !/^\d{1,15}$/.test(value.trim())) continue;
    const waitMs = format === 'SECONDS' ? Number(value) * 1000 : Number(value) * 1000 - wallMs;
    if (waitMs > 0 && waitMs <= policy.resetMaxMs) return waitMs * (1 + random() / 2);
  }
  return undefined;
}
