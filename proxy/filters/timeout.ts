/** Time-outs of a route: for the whole exchange (504 UT), for silence (504 SI), for its length (504 UMSDR), and per attempt, all on one timing wheel. */
import { isWhole } from '../http1/body.ts';
import type { Clock } from '../../lib/clock.ts';
import { WheelTimer } from '../../lib/wheel.ts';
import type { Wheel } from '../../lib/wheel.ts';
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { Body, ProxyRequest, ProxyResponse, Reply, Send } from '../service.ts';
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

/** One request within its route's time-outs. It is itself the timer of the whole, which nearly every route has. */
class Timed extends Deadline implements Reply {
  readonly #settings: TimeoutSettings;
  readonly #deps: TimeoutDeps;
  readonly #request: ProxyRequest;
  readonly #reply: Reply;
  #longest: Deadline | undefined = undefined;
  #idle: IdleDeadline | undefined = undefined;
  #over = false;

  constructor(request: ProxyRequest, settings: TimeoutSettings, deps: TimeoutDeps, reply: Reply) {
    super(request, 'upstreamTimeout', deps);
    this.#settings = settings;
    this.#deps = deps;
    this.#request = request;
    this.#reply = reply;
  }

  start(): void {
    const { timeoutMs, idleTimeoutMs, maxDurationMs } = this.#settings;
    const { wheel } = this.#deps;
    const request = this.#request;
    const streamed = request.body !== undefined && !isWhole(request.body);
    // Within a shorter total the silence cannot last long enough, except while a body is still coming up.
    if (idleTimeoutMs > 0 && (streamed || timeoutMs === 0 || idleTimeoutMs < timeoutMs)) {
      this.#idle = new IdleDeadline(request, idleTimeoutMs, this.#deps);
      this.#idle.start(request.startMs);
    }
    if (maxDurationMs > 0) {
      this.#longest = new Deadline(request, 'maxDuration', this.#deps);
      wheel.add(this.#longest, request.startMs + maxDurationMs);
    }
    if (!streamed) {
      if (timeoutMs > 0) this.#startTotal(request.startMs);
    } else if (timeoutMs > 0 || this.#idle !== undefined) request.body = new Upload(request.body!, this);
  }

  #startTotal(fromMs: number): void {
    this.#request.info.deadlineMs = fromMs + this.#settings.timeoutMs;
    this.#deps.wheel.add(this, this.#request.info.deadlineMs);
  }

  /** For the request's body: all of it is sent. */
  uploaded(): void {
    if (this.#settings.timeoutMs > 0 && !this.#over) this.#startTotal(this.#deps.clock.now());
  }

  moved(): void {
    if (this.#idle !== undefined) this.#idle.moved = true;
  }

  stop(): void {
    const { wheel } = this.#deps;
    wheel.remove(this);
    if (this.#longest !== undefined) wheel.remove(this.#longest);
    if (this.#idle !== undefined) wheel.remove(this.#idle);
  }

  answered(response: ProxyResponse): void {
    const body = response.body;
    if (response.tunnel !== undefined || body === undefined || isWhole(body)) {
      this.#over = true;
      this.stop();
    } else {
      // From now on the answer's body is what ends.
      const answer = new Answer(body, this);
      this.answer = answer;
      if (this.#longest !== undefined) this.#longest.answer = answer;
      if (this.#idle !== undefined) this.#idle.answer = answer;
      response.body = answer;
    }
    this.#reply.answered(response);
  }

  failed(error: ProxyError): void {
    this.#over = true;
    this.stop();
    this.#reply.failed(error);
  }
}

/** A request body on its way up: its end starts the route's time-out, its bytes are signs of life. */
class Upload extends BodyTap {
  readonly #timed: Timed;

  constructor(source: Body, timed: Timed) {
    super(source);
    this.#timed = timed;
  }

  protected override touched(): void {
    this.#timed.moved();
  }

  protected override over(error: ProxyError | undefined): void {
    if (error === undefined) this.#timed.uploaded();
  }
}

/** An answer's body: its end stops the timers. */
class Answer extends BodyTap {
  readonly #timed: Timed;

  constructor(source: Body, timed: Timed) {
    super(source);
    this.#timed = timed;
  }

  protected override touched(): void {
    this.#timed.moved();
  }

  protected override over(): void {
    this.#timed.stop();
  }
}

/** The route's time-outs around all attempts. Undefined when there are none. */
export function routeTimeout(settings: TimeoutSettings, deps: TimeoutDeps): ((next: Send) => Send) | undefined {
  const { timeoutMs, idleTimeoutMs, maxDurationMs } = settings;
  if (timeoutMs === 0 && idleTimeoutMs === 0 && maxDurationMs === 0) return undefined;
  return (next) => (request, reply) => {
    const timed = new Timed(request, settings, deps, reply);
    timed.start();
    next(request, timed);
  };
}

/** One attempt within its time-out. */
class TimedAttempt extends Deadline implements Reply {
  readonly #wheel: Wheel;
  readonly #reply: Reply;

  constructor(request: ProxyRequest, deps: TimeoutDeps, reply: Reply) {
    super(request, 'perTryTimeout', deps);
    this.#wheel = deps.wheel;
    this.#reply = reply;
  }

  answered(response: ProxyResponse): void {
    this.#wheel.remove(this);
    this.#reply.answered(response);
  }

  failed(error: ProxyError): void {
    this.#wheel.remove(this);
    this.#reply.failed(error);
  }
}

/** Ends one attempt that has no response head after `ms`. Retries come from outside. */
export function attemptTimeout(ms: number, deps: TimeoutDeps): (next: Send) => Send {
  return (next) => (request, reply) => {
    const timed = new TimedAttempt(request, deps, reply);
    deps.wheel.add(timed, deps.clock.now() + ms);
    next(request, timed);
  };
}
