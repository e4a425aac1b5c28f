/** Envoy's request headers by which a caller inside the mesh adjusts retries and time-outs; read once, taken off, and absent on the common path. */
import type { RetryPolicy } from '../../xds/snapshot.ts';
import { RETRY_WORDS } from '../filters/retry-rules.ts';
import type { Headers } from '../headers.ts';

/** What a request asked for; a field that it did not name is absent. */
export interface Controls {
  retryOn?: readonly string[];
  numRetries?: number;
  retriableStatusCodes?: readonly number[];
  retriableHeaderNames?: readonly string[];
  timeoutMs?: number;
  perTryTimeoutMs?: number;
}

/** Highest number of retries that a header may ask for. */
const RETRIES_MAX = 100;
const TIMEOUT_MS_MAX = 3_600_000;

const READERS: Readonly<Record<string, (controls: Controls, value: string) => void>> = {
  'x-envoy-retry-on': (controls, value) => addWords(controls, value),
  'x-envoy-retry-grpc-on': (controls, value) => addWords(controls, value),
  'x-envoy-max-retries': (controls, value) => setNumber(value, RETRIES_MAX, (number) => (controls.numRetries = number)),
  'x-envoy-retriable-status-codes': (controls, value) => {
    controls.retriableStatusCodes = items(value)
      .map(Number)
      .filter((code) => code >= 100 && code <= 599);
  },
  'x-envoy-retriable-header-names': (controls, value) => {
    controls.retriableHeaderNames = items(value);
  },
  'x-envoy-upstream-rq-timeout-ms': (controls, value) => setNumber(value, TIMEOUT_MS_MAX, (number) => (controls.timeoutMs = number)),
  'x-envoy-upstream-rq-per-try-timeout-ms': (controls, value) =>
    setNumber(value, TIMEOUT_MS_MAX, (number) => (controls.perTryTimeoutMs = number)),
  'x-envoy-hedge-on-per-try-timeout': () => undefined,
  'x-envoy-upstream-rq-timeout-alt-response': () => undefined,
};

/** Reads and removes the control headers; undefined when there are none. Values that make no sense are ignored, as Envoy does. */
export function takeControls(headers: Headers, honour: boolean): Controls | undefined {
  if (!headers.mayHaveEnvoy) return undefined;
  const { fields } = headers;
  let found: Controls | undefined;
  for (let i = 1; i < fields.length; i += 3) {
    const lower = fields[i]!;
    if (lower.charCodeAt(0) !== 120 || !lower.startsWith('x-envoy-') || !Object.hasOwn(READERS, lower)) continue;
    found ??= {};
    if (honour) READERS[lower]!(found, fields[i + 1]!);
  }
  if (found === undefined) return undefined;
  for (const name of Object.keys(READERS)) headers.remove(name);
  return honour ? found : undefined;
}

/** A route's policy with what the request asked for on top; undefined when there is nothing to retry. */
export function withControls(policy: RetryPolicy | undefined, controls: Controls): RetryPolicy | undefined {
  if (policy === undefined && controls.retryOn === undefined) return undefined;
  const base = policy ?? DEFAULT_POLICY;
  return {
    ...base,
    retryOn: [...base.retryOn, ...(controls.retryOn ?? [])],
    numRetries: controls.numRetries ?? base.numRetries,
    retriableStatusCodes: [...base.retriableStatusCodes, ...(controls.retriableStatusCodes ?? [])],
    retriableHeaders: [
      ...base.retriableHeaders,
      ...(controls.retriableHeaderNames ?? []).map((name) => ({
        name,
        match: { kind: 'present', present: true } as const,
        invert: false,
        treatMissingAsEmpty: false,
      })),
    ],
  };
}

/** Envoy's defaults for a policy that only headers ask for. */
const DEFAULT_POLICY: RetryPolicy = {
  retryOn: [],
  numRetries: 1,
  retriableStatusCodes: [],
  retriableHeaders: [],
  backOffBaseMs: 25,
  backOffMaxMs: 250,
  resetHeaders: [],
  resetMaxMs: 300_000,
  previousHosts: false,
  hostSelectionAttemptsMax: 1,
};

function addWords(controls: Controls, value: string): void {
  controls.retryOn = [...(controls.retryOn ?? []), ...items(value).filter((word) => RETRY_WORDS.includes(word))];
}

function items(value: string): string[] {
  return value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

function setNumber(value: string, max: number, set: (number: number) => void): void {
  if (/^\d{1,9}$/.test(value)) set(Math.min(max, Number(value)));
}
