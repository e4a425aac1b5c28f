/** When a request's body comes too slowly to be waited for. */
import type { Http1Settings } from './settings.ts';

/** A client may be this slow for this long: connections need time to get going. */
const GRACE_MS = 20_000;

/**
 * Past the request time-out; or, for a body of known length, slower than the least rate after a time of grace. A body without a length may
 * be a stream that is silent for good reasons. `bytes` came since `sinceMs`, which moves on when we held the client back ourselves.
 */
export function bodyTooSlow(
  settings: Http1Settings,
  nowMs: number,
  startMs: number,
  sinceMs: number,
  length: number | undefined,
  bytes: number,
): boolean {
  if (settings.requestTimeoutMs > 0 && nowMs - startMs >= settings.requestTimeoutMs) return true;
  const rate = settings.bodyBytesPerSecondMin;
  if (rate === 0 || length === undefined) return false;
  const spentMs = nowMs - sinceMs;
  return spentMs >= GRACE_MS && bytes * 1000 < rate * spentMs;
}
