/** Retries: sends a request again when its route's policy covers what went wrong, within the cluster's budget and the time that is left. */
import { isWhole } from '../http1/body.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Random } from '../../lib/random.ts';
import { WheelTimer } from '../../lib/wheel.ts';
import type { Wheel } from '../../lib/wheel.ts';
import { ProxyError } from '../errors.ts';
import type { Filter, ProxyRequest, ProxyResponse, Service } from '../service.ts';
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
}

export interface RetryDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: Wheel;
  /** Undefined while the cluster does not exist: then nothing is retried. */
  readonly budget: (request: ProxyRequest) => RetryBudget | undefined;
  readonly counters: (request: ProxyRequest) => RetryCounters | undefined;
}

/** What came of an attempt: exactly one of the two. */
interface Outcome {
  readonly response: ProxyResponse | undefined;
  readonly error: ProxyError | undefined;
}

/** Retries within `rules`. `onAttempt` runs before each attempt, when `info.attemptCount` is set. */
export function retry(rules: RetryRules, deps: RetryDeps, onAttempt?: (request: ProxyRequest) => void): Filter {
  return (next) => async (request) => {
    const streamed = request.body !== undefined && !isWhole(request.body);
    const replay = streamed ? new ReplayBody(request.body!) : undefined;
    if (replay !== undefined) request.body = replay.view();
    request.info.attemptCount = 1;
    onAttempt?.(request);
    let outcome = await attempt(next, request);
    if (!wanted(rules, request, outcome)) return finish(outcome, replay);
    const authority = request.authority;
    for (let retries = 1; ; retries++) {
      const waitMs = permit(rules, deps, request, outcome, replay, retries);
      if (waitMs === undefined) return finish(outcome, replay);
      const budget = addsLoad(outcome) ? deps.budget(request) : undefined;
      try {
        await prepare(rules, deps, request, outcome, waitMs);
        request.authority = authority;
        if (replay !== undefined) request.body = replay.view();
        request.info.attemptCount = retries + 1;
        onAttempt?.(request);
        outcome = await attempt(next, request);
      } catch (error) {
        outcome = { response: undefined, error: ProxyError.from(error) };
      } finally {
        budget?.giveRetry();
      }
      if (!wanted(rules, request, outcome)) {
        if (outcome.response !== undefined) deps.counters(request)?.rqRetrySuccess.inc();
        return finish(outcome, replay);
      }
    }
  };
}

async function attempt(next: Service, request: ProxyRequest): Promise<Outcome> {
  try {
    return { response: await next(request), error: undefined };
  } catch (error) {
    return { response: undefined, error: ProxyError.from(error) };
  }
}

function wanted(rules: RetryRules, request: ProxyRequest, { response, error }: Outcome): boolean {
  if (error !== undefined) return retriesError(rules, request, error);
  return response!.tunnel === undefined && retriesResponse(rules, request, response!);
}

function finish(outcome: Outcome, replay: ReplayBody | undefined): ProxyResponse {
  if (outcome.error !== undefined) {
    replay?.giveUp(outcome.error);
    throw outcome.error;
  }
  replay?.settle();
  return outcome.response!;
}

/**
 * Whether trying again sends the upstreams more than the client asked for. An attempt that nobody saw (a refused connection) has not used the request up:
 * the budget is not asked, or a dead instance with many requests waiting for it would fail all but three of them at once. `numRetries` still bounds it.
 */
function addsLoad({ error }: Outcome): boolean {
  return error?.row.retry !== 'always';
}

/** Asks everything that limits retries, the budget last because it counts. Answers how long to wait, or undefined when it is over. */
function permit(
  rules: RetryRules,
  deps: RetryDeps,
  request: ProxyRequest,
  outcome: Outcome,
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
  const asked = outcome.response === undefined ? undefined : askedBackOffMs(policy, outcome.response, deps.clock.wallMs(), deps.random);
  const waitMs = asked ?? backOffMs(policy, retryNumber, deps.random);
  // A retry that would begin after the deadline only delays the answer that is already here.
  const { deadlineMs } = request.info;
  if (deadlineMs > 0 && deps.clock.now() + waitMs >= deadlineMs) return undefined;
  const budget = deps.budget(request);
  if (budget === undefined || (addsLoad(outcome) && !budget.tryRetry())) return undefined;
  counters?.rqRetry.inc();
  if (asked === undefined) counters?.rqRetryBackoffExponential.inc();
  else counters?.rqRetryBackoffRatelimited.inc();
  return waitMs;
}

/** Lets go of the failed attempt, remembers who failed, and waits. Rejects when the client goes or the time is over meanwhile. */
async function prepare(rules: RetryRules, deps: RetryDeps, request: ProxyRequest, outcome: Outcome, waitMs: number): Promise<void> {
  const { info } = request;
  outcome.response?.body?.cancel(new ProxyError('upstreamReset', 'The answer is dropped because the request is retried.'));
  if (rules.policy.previousHosts && info.endpoint !== undefined) {
    (info.triedEndpoints ??= []).push(info.endpoint);
    info.reselectionsMax = rules.policy.hostSelectionAttemptsMax;
  }
  if (waitMs > 0) await pause(request, deps, waitMs);
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

/** Waits on the wheel; whoever aborts the request ends the wait. */
function pause(request: ProxyRequest, deps: RetryDeps, ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = new Pause(() => {
      request.abort = undefined;
      resolve();
    });
    request.abort = (error) => {
      request.abort = undefined;
      deps.wheel.remove(timer);
      reject(error);
    };
    deps.wheel.add(timer, deps.clock.now() + ms);
  });
}
