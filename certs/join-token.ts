/**
 * Join tokens: a workload's first proof of who it is, good for one use. `createJoinTokens(options)` -> `issue(identity)`, `redeem(token)`.
 * Only the SHA-256 of a token is kept, so a copy of the state lets nobody in.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import { formatSpiffeId, parseSpiffeId } from '../lib/spiffe.ts';

/** What a token stands for: an identity, and whatever the caller wants to find again (workload, labels, address). */
export interface JoinTokenBinding {
  readonly spiffeId: string;
  readonly attributes: Readonly<Record<string, string>>;
}

/** The token is shown once, here; `id` names it in logs and lists. */
export interface IssuedJoinToken {
  readonly token: string;
  readonly id: string;
  readonly expiresMs: number;
}

export type Redemption =
  | { readonly ok: true; readonly id: string; readonly binding: JoinTokenBinding }
  | { readonly ok: false; readonly reason: 'unknown' | 'expired' | 'replayed'; readonly id: string | undefined; readonly message: string };

/** One token at rest. Times are epoch milliseconds. */
export interface JoinTokenRecord {
  readonly hash: string;
  readonly binding: JoinTokenBinding;
  readonly expiresMs: number;
  readonly redeemedMs: number | undefined;
}

export interface JoinTokensOptions {
  readonly clock: Clock;
  /** Trust domain that bindings must be in. */
  readonly trustDomain: string;
  /** Most tokens that wait for their use. Default 10,000. */
  readonly outstandingMax?: number;
  /** What `exportState` gave before. */
  readonly state?: unknown;
  /** Called with the new state before an answer is given; if it throws, so does the call, and a token that was being redeemed stays spent. */
  readonly save?: (state: readonly JoinTokenRecord[]) => void;
}

export interface JoinTokens {
  /** Makes a token. `ttlMs` defaults to 600,000 and is at most 30 days. Throws when too many wait already. */
  issue(spiffeId: string, options?: { readonly ttlMs?: number; readonly attributes?: Readonly<Record<string, string>> }): IssuedJoinToken;
  /** Takes a token, once. Never throws for what a caller sends. */
  redeem(token: string): Redemption;
  /** Makes a token that waits useless; true when there was one. */
  withdraw(id: string): boolean;
  /** Tokens that wait. */
  readonly outstanding: number;
  exportState(): readonly JoinTokenRecord[];
}

const TTL_MS_DEFAULT = 600_000;
const TTL_MS_MAX = 30 * 24 * 3_600_000;
const OUTSTANDING_MAX_DEFAULT = 10_000;
/** Spent and expired tokens are remembered this long after their end, so that a refusal can say which of the two it was. */
const REMEMBER_MS = 3_600_000;
/** Spent tokens take room too; this many records per token that may wait. */
const RECORDS_PER_OUTSTANDING = 4;
const TOKEN = /^mwj_[A-Za-z0-9_-]{43}$/;

/** Makes a table of join tokens, empty or from stored state. */
export function createJoinTokens(options: JoinTokensOptions): JoinTokens {
  return new JoinTokenTable(options);
}

class JoinTokenTable implements JoinTokens {
  readonly #options: JoinTokensOptions;
  readonly #outstandingMax: number;
  readonly #records = new Map<string, JoinTokenRecord>();

  constructor(options: JoinTokensOptions) {
    this.#options = options;
    this.#outstandingMax = options.outstandingMax ?? OUTSTANDING_MAX_DEFAULT;
    for (const record of importRecords(options.state)) this.#records.set(record.hash, record);
  }

  issue(
    spiffeId: string,
    { ttlMs = TTL_MS_DEFAULT, attributes = {} }: { readonly ttlMs?: number; readonly attributes?: Readonly<Record<string, string>> } = {},
  ): IssuedJoinToken {
    const id = parseSpiffeId(spiffeId);
    const { trustDomain, clock } = this.#options;
    if (id.trustDomain !== trustDomain) throw new Error(`a join token is for an identity of ${trustDomain}, received ${spiffeId}`);
    if (!(ttlMs > 0 && ttlMs <= TTL_MS_MAX)) throw new Error(`a join token lives for up to ${TTL_MS_MAX} ms, received ${ttlMs}`);
    const nowMs = clock.wallMs();
    this.#forget(nowMs);
    if (this.outstanding >= this.#outstandingMax || this.#records.size >= RECORDS_PER_OUTSTANDING * this.#outstandingMax) {
      throw new Error(`at most ${this.#outstandingMax} join tokens may wait for their use; withdraw some or wait until they expire`);
    }
    const token = `mwj_${randomBytes(32).toString('base64url')}`;
    const hash = hashOf(token);
    this.#records.set(hash, {
      hash,
      binding: { spiffeId: formatSpiffeId(id), attributes },
      expiresMs: nowMs + ttlMs,
      redeemedMs: undefined,
    });
    this.#save();
    return { token, id: idOf(hash), expiresMs: nowMs + ttlMs };
  }

  redeem(token: string): Redemption {
    const nowMs = this.#options.clock.wallMs();
    const hash = typeof token === 'string' && TOKEN.test(token) ? hashOf(token) : undefined;
    const record = hash === undefined ? undefined : this.#records.get(hash);
    if (hash === undefined || record === undefined) {
      return {
        ok: false,
        reason: 'unknown',
        id: hash === undefined ? undefined : idOf(hash),
        message: 'This join token is not known here.',
      };
    }
    const id = idOf(hash);
    if (record.redeemedMs !== undefined) {
      const at = new Date(record.redeemedMs).toISOString();
      return { ok: false, reason: 'replayed', id, message: `This join token was used already, at ${at}; a token is good for one use.` };
    }
    if (record.expiresMs <= nowMs) {
      return { ok: false, reason: 'expired', id, message: `This join token expired at ${new Date(record.expiresMs).toISOString()}.` };
    }
    this.#records.set(hash, { ...record, redeemedMs: nowMs });
    this.#save();
    return { ok: true, id, binding: record.binding };
  }

  withdraw(id: string): boolean {
    for (const [hash, record] of this.#records) {
      if (idOf(hash) !== id || record.redeemedMs !== undefined) continue;
      this.#records.delete(hash);
      this.#save();
      return true;
    }
    return false;
  }

  get outstanding(): number {
    const nowMs = this.#options.clock.wallMs();
    let count = 0;
    for (const record of this.#records.values()) if (record.redeemedMs === undefined && record.expiresMs > nowMs) count++;
    return count;
  }

  exportState(): readonly JoinTokenRecord[] {
    return [...this.#records.values()];
  }

  #save(): void {
    this.#options.save?.(this.exportState());
  }

  /** Drops what expired: after a while, or at once when the table is large. A spent token stays until it would have expired, or a replay would be unknown. */
  #forget(nowMs: number): void {
    const rememberMs = this.#records.size > 2 * this.#outstandingMax ? 0 : REMEMBER_MS;
    for (const [hash, record] of this.#records) if (record.expiresMs + rememberMs <= nowMs) this.#records.delete(hash);
  }
}

const hashOf = (token: string): string => createHash('sha256').update(token).digest('hex');
const idOf = (hash: string): string => hash.slice(0, 12);

function importRecords(state: unknown): JoinTokenRecord[] {
  if (state === undefined) return [];
  if (!Array.isArray(state)) throw new Error('stored join tokens should be a list');
  return state.map((entry: unknown, index) => {
    const fail = (rule: string): never => {
      throw new Error(`stored join token ${index}: ${rule}`);
    };
    const record = (typeof entry === 'object' && entry !== null ? entry : fail('should be an object')) as Partial<JoinTokenRecord>;
    const { hash, binding, expiresMs, redeemedMs } = record;
    if (typeof hash !== 'string' || !/^[0-9a-f]{64}$/.test(hash)) return fail('hash should be 64 hex digits');
    if (typeof expiresMs !== 'number' || !Number.isFinite(expiresMs)) return fail('expiresMs should be a number');
    if (redeemedMs !== undefined && redeemedMs !== null && typeof redeemedMs !== 'number') return fail('redeemedMs should be a number');
    if (typeof binding !== 'object' || binding === null || typeof binding.spiffeId !== 'string')
      return fail('binding should name a spiffeId');
    const attributes = binding.attributes;
    if (typeof attributes !== 'object' || attributes === null || Object.values(attributes).some((value) => typeof value !== 'string')) {
      return fail('binding attributes should be text');
    }
    return {
      hash,
      binding: { spiffeId: formatSpiffeId(parseSpiffeId(binding.spiffeId)), attributes },
      expiresMs,
      redeemedMs: redeemedMs ?? undefined,
    };
  });
}
