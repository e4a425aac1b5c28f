/** Retries: sends a request again when its route's policy covers what went wrong, within the cluster's budget and the time that is left. */
import { isWhole } from '../http1/body.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Random } from '../../lib/random.ts';
import { WheelTimer } from '../../lib/wheel.ts';
import type { Wheel } from '../../lib/wheel.ts';
import { ProxyError } from '../errors.ts';
import type { ProxyRequest, ProxyResponse, Reply, Send } from '../service.ts';
import { ReplayBody } from './replay-body.ts';
import { askedBackOffMs, backOffMs, retriesError, retriesResponse } from './retry-rules.ts';
import type { RetryRules } from './retry-rules.ts';

/** The cluster's side: may one more retry be under way, and who counts. */
export interface RetryBudget {
  tryRetry(): boolean;
  giveRetry(): void;
}

export interface RetryCounters {
  readonly rqRetry: { inc(): void };
  readonly rqRetrySuccess: { inc(): void };
  readonly rqRetryLimitExceeded: { inc(): void };
  readonly rqRetryBackoffExponential: { inc(): void };
  readonly rqRetryBackoffRatelimited: { inc(): void };
  /** What was counted of an attempt is taken back: another one is made. `answered`: by an answer, and not by an error. */
  retried(status: number, answered: boolean): void;
}

export interface RetryDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: Wheel;
  /** Undefined while the cluster does not exist: then nothing is retried. */
  readonly budget: (request: ProxyRequest) => RetryBudget | undefined;
  readonly counters: (request: ProxyRequest) => RetryCounters | undefined;
}

/** Retries within `rules`. `onAttempt` runs before each attempt, when `info.attemptCount` is set. */
export function retry(rules: RetryRules, deps: RetryDeps, onAttempt?: (request: ProxyRequest) => void): (next: Send) => Send {
  return (next) => {
    const route: Route = { rules, deps, onAttempt, next };
    return (request, reply) => new Tries(route, request, reply).start();
  };
}

/** What all requests of a route share. */
interface Route {
  readonly rules: RetryRules;
  readonly deps: RetryDeps;
  readonly onAttempt: ((request: ProxyRequest) => void) | undefined;
  readonly next: Send;
}

/** One request and its attempts, one after the other. */
class Tries implements Reply {
  readonly #route: Route;
  readonly #request: ProxyRequest;
  readonly #reply: Reply;
  #retries = 0;
  #replay: ReplayBody | undefined = undefined;
  /** Of the request as it came: a picked endpoint may have put its own name in its place. */
  readonly #authority: string;
  /** Whom the retry that is under way was taken from. */
  #budget: RetryBudget | undefined = undefined;

  constructor(route: Route, request: ProxyRequest, reply: Reply) {
    this.#route = route;
    this.#request = request;
    this.#reply = reply;
    this.#authority = request.authority;
  }

  start(): void {
    const request = this.#request;
    if (request.body !== undefined && !isWhole(request.body)) {
      this.#replay = new ReplayBody(request.body);
      request.body = this.#replay.view();
    }
    this.#attempt();
  }

  #attempt(): void {
    const { onAttempt, next } = this.#route;
    this.#request.info.attemptCount = this.#retries + 1;
    onAttempt?.(this.#request);
    next(this.#request, this);
  }

  answered(response: ProxyResponse): void {
    this.#giveBack();
    const { rules, deps } = this.#route;
    if (response.tunnel === undefined && retriesResponse(rules, this.#request, response) && this.#again(response, undefined)) return;
    if (this.#retries > 0 && (response.tunnel !== undefined || !retriesResponse(rules, this.#request, response)))
      deps.counters(this.#request)?.rqRetrySuccess.inc();
    this.#replay?.settle();
    this.#reply.answered(response);
  }

  failed(error: ProxyError): void {
    this.#giveBack();
    if (retriesError(this.#route.rules, this.#request, error) && this.#again(undefined, error)) return;
    this.#replay?.giveUp(error);
    this.#reply.failed(error);
  }

  #giveBack(): void {
    this.#budget?.giveRetry();
    this.#budget = undefined;
  }

  /** Tries once more if everything that limits retries lets it. Exactly one of the two arguments is there. */
  #again(response: ProxyResponse | undefined, error: ProxyError | undefined): boolean {
    const { rules, deps } = this.#route;
    const request = this.#request;
    const adds = addsLoad(error);
    const waitMs = permit(rules, deps, request, response, adds, this.#replay, this.#retries + 1);
    if (waitMs === undefined) return false;
    this.#budget = adds ? deps.budget(request) : undefined;
    deps.counters(request)?.retried(response?.status ?? error!.row.status, response !== undefined);
    this.#retries++;
    // Lets go of the failed attempt, and remembers who failed.
    response?.body?.cancel(new ProxyError('upstreamReset', 'The answer is dropped because the request is retried.'));
    const { info } = request;
    if (rules.policy.previousHosts && info.endpoint !== undefined) {
      (info.triedEndpoints ??= []).push(info.endpoint);
      info.reselectionsMax = rules.policy.hostSelectionAttemptsMax;
    }
    if (waitMs > 0) this.#pause(waitMs);
    else this.#sendAgain();
    return true;
  }

  #sendAgain(): void {
    const request = this.#request;
    request.authority = this.#authority;
    if (this.#replay !== undefined) request.body = this.#replay.view();
    this.#attempt();
  }

  /** Waits on the wheel; whoever aborts the request ends the wait. */
  #pause(ms: number): void {
    const { wheel, clock } = this.#route.deps;
    const request = this.#request;
    const timer = new Pause(() => {
      request.abort = undefined;
      this.#sendAgain();
    });
    request.abort = (error) => {
      request.abort = undefined;
      wheel.remove(timer);
      this.failed(error);
    };
    wheel.add(timer, clock.now() + ms);
  }
}

/**
 * Whether trying again sends the upstreams more than the client asked for. An attempt that nobody saw (a refused connection) has not used the request up:
 * the budget is not asked, or a dead instance with many requests waiting for it would fail all but three of them at once. `numRetries` still bounds it.
 */
function addsLoad(error: ProxyError | undefined): boolean {
  return error?.row.retry !== 'always';
}

/** Asks everything that limits retries, the budget last because it counts. Answers how long to wait, or undefined when it is over. */
function permit(
  rules: RetryRules,
  deps: RetryDeps,
  request: ProxyRequest,
  response: ProxyResponse | undefined,
  adds: boolean,
  replay: ReplayBody | undefined,
  retryNumber: number,
): number | undefined {
  const { policy } = rules;
  const counters = deps.counters(request);
  if (retryNumber > policy.numRetries) {
    if (policy.numRetries > 0) {
      counters?.rqRetryLimitExceeded.inc();
      const info = request.info;
      info.responseFlags = info.responseFlags === '' ? 'URX' : `${info.responseFlags},URX`;
    }
    return undefined;
  }
  if (replay !== undefined && !replay.replayable) return undefined;
  const asked = response === undefined ? undefined : askedBackOffMs(policy, response, deps.clock.wallMs(), deps.random);
  const waitMs = asked ?? backOffMs(policy, retryNumber, deps.random);
  // A retry that would begin after the deadline only delays the answer that is already here.
  const { deadlineMs } = request.info;
  if (deadlineMs > 0 && deps.clock.now() + waitMs >= deadlineMs) return undefined;
  const budget = deps.budget(request);
  if (budget === undefined || (adds && !budget.tryRetry())) return undefined;
  counters?.rqRetry.inc();
  if (asked === undefined) counters?.rqRetryBackoffExponential.inc();
  else counters?.rqRetryBackoffRatelimited.inc();
  return waitMs;
}

class Pause extends WheelTimer {
  readonly #done: () => void;

  constructor(done: () => void) {
    super();
    this.#done = done;
  }

  expire(): void {
    this.#done();
  }
}
