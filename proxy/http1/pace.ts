/** How fast one connection moves: when it was last active, and whether its client is too slow to be waited for. */
import type { Http1Settings } from './settings.ts';

/** A client may be this slow for this long: connections need time to get going. */
const GRACE_MS = 20_000;

/** Readings of one connection, in clock milliseconds. */
export class Pace {
  readonly #settings: Http1Settings;
  readonly openedMs: number;
  /** Last byte in either direction, to within a sweep. */
  activeMs: number;
  /** Start of the head or of the part of a body that is being read. */
  readingSinceMs: number;
  /** Body bytes read before then, so that time spent on hold is not held against the client. */
  bytesBefore = 0;
  writtenBefore = 0;

  constructor(settings: Http1Settings, nowMs: number) {
    this.#settings = settings;
    this.openedMs = this.activeMs = this.readingSinceMs = nowMs;
  }

  /** A request's head is there. */
  requestBegins(nowMs: number): void {
    this.readingSinceMs = nowMs;
    this.bytesBefore = this.writtenBefore = 0;
  }

  /** Reading goes on after a hold, with `bytes` of the body read before. */
  readingResumes(nowMs: number, bytes: number): void {
    this.readingSinceMs = nowMs;
    this.bytesBefore = bytes;
  }

  /** Content bytes of the answer so far; that they grow is a sign of life. */
  wrote(bytes: number, nowMs: number): void {
    if (bytes === this.writtenBefore) return;
    this.writtenBefore = bytes;
    this.activeMs = nowMs;
  }

  /** After the last answer: its time is over, and nothing of it waits for a reader who still takes some. */
  isLastOver(nowMs: number, closeAtMs: number, waitingBytes: number): boolean {
    this.wrote(-waitingBytes, nowMs);
    return nowMs >= closeAtMs && (waitingBytes === 0 || this.isSilent(nowMs, this.#settings.streamIdleTimeoutMs));
  }

  /** The connection is older than it may get. */
  isOld(nowMs: number): boolean {
    const maxMs = this.#settings.maxConnectionDurationMs;
    return maxMs > 0 && nowMs - this.openedMs >= maxMs;
  }

  /** The head that is being read takes too long. */
  isHeadLate(nowMs: number): boolean {
    const maxMs = this.#settings.requestHeadersTimeoutMs;
    return maxMs > 0 && nowMs - this.readingSinceMs >= maxMs;
  }

  /** Nothing moved for so long; 0 = any time. */
  isSilent(nowMs: number, maxMs: number): boolean {
    return maxMs > 0 && nowMs - this.activeMs >= maxMs;
  }

  /**
   * Past the request time-out; or, for a body of known length, slower than the least rate after a time of grace. A body without a length may
   * be a stream that is silent for good reasons.
   */
  isBodySlow(nowMs: number, startMs: number, length: number | undefined, bytes: number): boolean {
    const { requestTimeoutMs, bodyBytesPerSecondMin } = this.#settings;
    if (requestTimeoutMs > 0 && nowMs - startMs >= requestTimeoutMs) return true;
    if (bodyBytesPerSecondMin === 0 || length === undefined) return false;
    const spentMs = nowMs - this.readingSinceMs;
    return spentMs >= GRACE_MS && (bytes - this.bytesBefore) * 1000 < bodyBytesPerSecondMin * spentMs;
  }
}
