/**
 * When certificates are due: `renewalDelayMs(certificate, nowMs, random)` for leaves, `rootStep(root, nowMs)` for roots. Pure; the caller owns the timer.
 */
import type { Random } from '../lib/random.ts';

/** Epoch milliseconds. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Share of a leaf's life after which it is renewed, and how far chance moves that. */
const RENEW_AT = 0.5;
const RENEW_JITTER = 0.01;
/** Shares of a root's life: its successor is made at one half and signs from five sixths on, so a leaf of up to a sixth is never cut short (SPIRE's rule). */
const PREPARE_AT = 1 / 2;
const ACTIVATE_AT = 5 / 6;
/** But a long-lived root need not wait longer than this before its end. */
const ACTIVATE_BEFORE_END_MS_MAX = 7 * 24 * 3_600_000;

/** The moment to renew: half of the life, moved by up to 1 % of it either way so that a thousand proxies do not come at once. Epoch milliseconds. */
export function renewAtMs(validity: Validity, random: Random): number {
  const lifeMs = validity.notAfterMs - validity.notBeforeMs;
  return validity.notBeforeMs + lifeMs * (RENEW_AT + (random() * 2 - 1) * RENEW_JITTER);
}

/** How long to wait until then; 0 when it is due. */
export function renewalDelayMs(validity: Validity, nowMs: number, random: Random): number {
  return Math.max(0, renewAtMs(validity, random) - nowMs);
}

/** How loudly a certificate should be warned about: at half of its life left fine, below a quarter urgent, and expired. */
export function expiryState(validity: Validity, nowMs: number): 'fine' | 'renewalDue' | 'urgent' | 'expired' {
  const left = (validity.notAfterMs - nowMs) / (validity.notAfterMs - validity.notBeforeMs);
  if (left <= 0) return 'expired';
  if (left < 0.25) return 'urgent';
  return left < 0.5 - RENEW_JITTER ? 'renewalDue' : 'fine';
}

/** What a signing root needs now. `prepare` comes well before `activate`, so that the bundle reaches everyone in between. */
export function rootStep(root: Validity, nowMs: number): 'none' | 'prepare' | 'activate' {
  const lifeMs = root.notAfterMs - root.notBeforeMs;
  const activateMs = Math.max(root.notBeforeMs + lifeMs * ACTIVATE_AT, root.notAfterMs - ACTIVATE_BEFORE_END_MS_MAX);
  if (nowMs >= activateMs) return 'activate';
  return nowMs >= root.notBeforeMs + lifeMs * PREPARE_AT ? 'prepare' : 'none';
}
