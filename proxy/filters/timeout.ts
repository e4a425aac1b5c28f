/** Time-outs of a route: for the whole exchange (504 UT), for silence (504 SI), for its length (504 UMSDR), and per attempt, all on one timing wheel. */
import { isWhole } from '../http1/body.ts';
import type { Clock } from '../../lib/clock.ts';
import { WheelTimer } from '../../lib/wheel.ts';
import type { Wheel } from '../../lib/wheel.ts';
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { Body, Filter, ProxyRequest } from '../service.ts';
import { BodyTap } from '../upstream/body-tap.ts';

/** Milliseconds; 0 = none. */
export interface TimeoutSettings {
  /** From the end of the request to the end of the answer, all attempts included (Envoy's route timeout). */
  readonly timeoutMs: number;
  /** No byte in either direction for this long; kept to within a quarter. */
  readonly idleTimeoutMs: number;
  /** From the request's head to the end of the answer. */
  readonly maxDurationMs: number;
}

export interface TimeoutDeps {
  readonly clock: Clock;
  readonly wheel: Wheel;
  /** Told when a request ran out of time, for counters. */
  readonly onTimeout?: (code: ErrorCode, request: ProxyRequest) => void;
}

/** How long a timer waits for a request that nobody can end at this moment. */
const AGAIN_MS = 8;
const IDLE_STEPS = 4;

/** One request's time-out: ends the work under way before the response head, breaks the answer off after it. */
class Deadline extends WheelTimer {
  readonly #request: ProxyRequest;
  readonly #code: ErrorCode;
  readonly #deps: TimeoutDeps;
  answer: BodyTap | undefined = undefined;

  constructor(request: ProxyRequest, code: ErrorCode, deps: TimeoutDeps) {
    super();
    this.#request = request;
    this.#code = code;
    this.#deps = deps;
  }

  expire(): void {
    const abort = this.#request.abort;
    if (this.answer === undefined && abort === undefined) {
      this.#deps.wheel.add(this, this.#deps.clock.now() + AGAIN_MS);
      return;
    }
    const error = new ProxyError(this.#code);
    this.#deps.onTimeout?.(this.#code, this.#request);
    if (this.answer === undefined) {
      abort!(error);
      return;
    }
    const info = this.#request.info;
    info.responseFlags = info.responseFlags === '' ? error.row.flag : `${info.responseFlags},${error.row.flag}`;
    info.responseDetails = error.row.details;
    this.answer.breakOff(error);
  }
}

/** Looks four times per idle time whether anything moved; bytes only set a flag. */
class IdleDeadline extends Deadline {
  moved = false;
  #quiet = 0;
  readonly #stepMs: number;
  readonly #idleDeps: TimeoutDeps;

  constructor(request: ProxyRequest, idleMs: number, deps: TimeoutDeps) {
    super(request, 'streamIdleTimeout', deps);
    this.#stepMs = idleMs / IDLE_STEPS;
    this.#idleDeps = deps;
  }

  start(nowMs: number): void {
    this.#idleDeps.wheel.add(this, nowMs + this.#stepMs);
  }

  override expire(): void {
    this.#quiet = this.moved ? 0 : this.#quiet + 1;
    this.moved = false;
    if (this.#quiet >= IDLE_STEPS) super.expire();
    else this.#idleDeps.wheel.add(this, this.#idleDeps.clock.now() + this.#stepMs);
  }
}

/** The timers of one request. */
class Timers {
  readonly total: Deadline | undefined;
  readonly longest: Deadline | undefined;
  readonly idle: IdleDeadline | undefined;
  readonly #wheel: Wheel;

  constructor(request: ProxyRequest, settings: TimeoutSettings, idle: boolean, deps: TimeoutDeps) {
    this.#wheel = deps.wheel;
    this.total = settings.timeoutMs > 0 ? new Deadline(request, 'upstreamTimeout', deps) : undefined;
    this.longest = settings.maxDurationMs > 0 ? new Deadline(request, 'maxDuration', deps) : undefined;
    this.idle = idle ? new IdleDeadline(request, settings.idleTimeoutMs, deps) : undefined;
  }

  stop(): void {
    if (this.total !== undefined) this.#wheel.remove(this.total);
    if (this.longest !== undefined) this.#wheel.remove(this.longest);
    if (this.idle !== undefined) this.#wheel.remove(this.idle);
  }

  /** From now on the answer's body is what ends. */
  follow(answer: BodyTap): void {
    if (this.total !== undefined) this.total.answer = answer;
    if (this.longest !== undefined) this.longest.answer = answer;
    if (this.idle !== undefined) this.idle.answer = answer;
  }
}

/** A request body on its way up: its end starts the route's time-out, its bytes are signs of life. */
class Upload extends BodyTap {
  readonly #timers: Timers;
  readonly #ended: () => void;

  constructor(source: Body, timers: Timers, ended: () => void) {
    super(source);
    this.#timers = timers;
    this.#ended = ended;
  }

  protected override touched(): void {
    if (this.#timers.idle !== undefined) this.#timers.idle.moved = true;
  }

  protected override over(error: ProxyError | undefined): void {
    if (error === undefined) this.#ended();
  }
}

/** An answer's body: its end stops the timers. */
class Answer extends BodyTap {
  readonly #timers: Timers;

  constructor(source: Body, timers: Timers) {
    super(source);
    this.#timers = timers;
  }

  protected override touched(): void {
    if (this.#timers.idle !== undefined) this.#timers.idle.moved = true;
  }

  protected override over(): void {
    this.#timers.stop();
  }
}

/** The route's time-outs around all attempts. Undefined when there are none. */
export function routeTimeout(settings: TimeoutSettings, deps: TimeoutDeps): Filter | undefined {
  const { timeoutMs, idleTimeoutMs, maxDurationMs } = settings;
  if (timeoutMs === 0 && idleTimeoutMs === 0 && maxDurationMs === 0) return undefined;
  // Within a shorter total the silence cannot last long enough, except while a body is still coming up.
  const idleAlways = idleTimeoutMs > 0 && (timeoutMs === 0 || idleTimeoutMs < timeoutMs);
  return (next) => async (request) => {
    const streamed = request.body !== undefined && !isWhole(request.body);
    const timers = new Timers(request, settings, idleAlways || (streamed && idleTimeoutMs > 0), deps);
    const { total, longest, idle } = timers;
    if (longest !== undefined) deps.wheel.add(longest, request.startMs + maxDurationMs);
    idle?.start(request.startMs);
    let answered = false;
    if (total !== undefined && !streamed) {
      request.info.deadlineMs = request.startMs + timeoutMs;
      deps.wheel.add(total, request.info.deadlineMs);
    }
    if (streamed && (total !== undefined || idle !== undefined)) {
      request.body = new Upload(request.body!, timers, () => {
        if (total === undefined || answered) return;
        request.info.deadlineMs = deps.clock.now() + timeoutMs;
        deps.wheel.add(total, request.info.deadlineMs);
      });
    }
    try {
      const response = await next(request);
      const body = response.body;
      if (response.tunnel !== undefined || body === undefined || isWhole(body)) {
        answered = true;
        timers.stop();
        return response;
      }
      const answer = new Answer(body, timers);
      timers.follow(answer);
      response.body = answer;
      return response;
    } catch (error) {
      answered = true;
      timers.stop();
      throw error;
    }
  };
}

/** Ends one attempt that has no response head after `ms`. Retries come from outside. */
export function attemptTimeout(ms: number, deps: TimeoutDeps): Filter {
  return (next) => async (request) => {
    const timer = new Deadline(request, 'perTryTimeout', deps);
    deps.wheel.add(timer, deps.clock.now() + ms);
    try {
      return await next(request);
    } finally {
      deps.wheel.remove(timer);
    }
  };
}
