/** What a server session is given, what it tells, and what it can be asked: the types around the state machine. */
import type { Clock } from '../../lib/clock.ts';
import type { ErrorDetail, Mode, NodeInfo } from './messages.ts';
import type { StrangeNames, SubscriptionChange } from './subscription.ts';

export type ServerEvent =
  | { readonly kind: 'identified'; readonly node: NodeInfo }
  | { readonly kind: 'subscribed'; readonly typeUrl: string; readonly change: SubscriptionChange }
  | { readonly kind: 'sent'; readonly typeUrl: string; readonly version: string; readonly nonce: string; readonly resources: number }
  | { readonly kind: 'acked'; readonly typeUrl: string; readonly version: string; readonly nonce: string }
  | { readonly kind: 'nacked'; readonly typeUrl: string; readonly version: string; readonly nonce: string; readonly message: string }
  | { readonly kind: 'stale'; readonly typeUrl: string; readonly nonce: string };

export interface ServerSessionOptions {
  readonly mode: Mode;
  /** Set for the per-type services; undefined for the aggregated one. */
  readonly typeUrl?: string;
  readonly clock: Clock;
  /** Told when `next()` may have something: after a timer, a publish or a request. */
  readonly onWork?: () => void;
  readonly onEvent?: (event: ServerEvent) => void;
  /** Different types on one stream; default 64. */
  readonly typesMax?: number;
  /** Names per type; default 100,000. */
  readonly namesMax?: number;
  /** Characters of all names that a stream holds, and a hundred for each name; default 16 Mi. */
  readonly nameCharsMax?: number;
  /** Bounds the names that no resource has for several sessions together; undefined = each for itself. */
  readonly strangeNames?: StrangeNames;
  /** This session holds most of them and they are too many: it must end. */
  readonly onEvicted?: () => void;
  /** A delta response is split beyond this; default 32 MiB. A full-state response cannot be. */
  readonly responseBytesMax?: number;
  /** Longest that make-before-break holds a type back for another's answer; default 5,000. */
  readonly holdMsMax?: number;
}

/** A response that waits for its answer. */
export interface Outstanding {
  readonly nonce: string;
  readonly version: string;
  readonly additions: number;
}

/** An answer to a response. */
export interface Verdict {
  readonly nonce: string;
  readonly version: string;
  readonly error: ErrorDetail | undefined;
}

/** Where a type stands on a stream, in CSDS's words. */
export interface TypeStatus {
  readonly typeUrl: string;
  readonly wildcard: boolean;
  readonly names: ReadonlySet<string>;
  /** NOT_SENT: nothing yet; STALE: sent and not answered; SYNCED: acknowledged; ERROR: rejected. */
  readonly state: 'SYNCED' | 'NOT_SENT' | 'STALE' | 'ERROR';
  readonly sentVersion: string;
  readonly ackedVersion: string;
  readonly error: string;
  /** Nothing waits to be sent and nothing waits for an answer. */
  readonly settled: boolean;
}
