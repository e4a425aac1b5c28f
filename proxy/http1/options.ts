/** What a served HTTP/1.1 connection is given and what it offers: options, counters, drain. */
import type { Clock } from '../../lib/clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { DownstreamConnection, Send } from '../service.ts';
import type { ErrorResponse } from './error-response.ts';
import type { Http1Settings } from './settings.ts';

/** Counters of a listener, called on the way; each is a few additions and must not throw. */
export interface Http1Events {
  /** A message was refused: its head before any service saw it, or its body while one did. */
  rejected?(code: ErrorCode): void;
  /** A head was complete, and an exchange was over. Their difference is what is under way. */
  requestStarted?(): void;
  requestEnded?(): void;
  /** The answer was written to its end before the request was read to its end. */
  answeredEarly?(): void;
  /** This side lets the connection go: it was idle, is too old, has had all its requests, or is drained. */
  retired?(reason: 'idle' | 'age' | 'requests' | 'drain'): void;
  /** The connection has become a tunnel; the answer is called when that is over. */
  tunnelOpened?(): () => void;
}

/** How a connection ended. */
export interface Http1End {
  readonly by: 'local' | 'remote';
  /** A request was under way. */
  readonly busy: boolean;
}

export interface Http1Options {
  readonly connection: DownstreamConnection;
  readonly send: Send;
  readonly settings: Http1Settings;
  readonly clock: Clock;
  readonly events?: Http1Events;
  readonly errorResponse?: ErrorResponse;
  /** Called once when the connection is over, tunnels included. */
  readonly onClose?: (end: Http1End) => void;
}

/** A served connection. */
export interface Http1Connection {
  readonly closed: boolean;
  /** Requests answered or under way. */
  readonly requests: number;
  /** Finishes what is under way, tells the client that the connection ends, and closes; idle ones close after the drain time-out. */
  drain(): void;
  /** Closes at once. */
  destroy(): void;
}
