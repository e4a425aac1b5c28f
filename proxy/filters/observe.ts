/** Tells logs, metrics and traces about each exchange: one clock reading and one call when it is over. */
import { isWhole } from '../http1/body.ts';
import type { Exchange } from './format.ts';
import type { Layer, ProxyRequest, ProxyResponse } from '../service.ts';
import type { Clock } from '../../lib/clock.ts';

/** Someone who wants to know. Both calls are on the hot path and must not throw. */
export interface Observer {
  /** The request's head is there. */
  started?(request: ProxyRequest): void;
  /** TCP only: the connection to the endpoint stands. */
  connected?(request: ProxyRequest): void;
  /** The exchange is over. The object is only valid during the call. */
  done(exchange: Exchange): void;
}

/** One for all requests of a manager: observers look at it during the call and keep nothing of it. */
class Ended implements Exchange {
  readonly #clock: Clock;
  request!: ProxyRequest;
  response: ProxyResponse | undefined = undefined;
  durationMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get startWallMs(): number {
    return this.#clock.wallMs() - this.durationMs;
  }
}

/** The outermost filter. Without observers it is absent. */
export function observe(observers: readonly Observer[], clock: Clock): Layer | undefined {
  if (observers.length === 0) return undefined;
  const starters = observers.filter((observer) => observer.started !== undefined);
  const ended = new Ended(clock);
  const done = (response: ProxyResponse | undefined, request: ProxyRequest): void => {
    ended.request = request;
    ended.response = response;
    // An answer that was all there with its head is over when it begins: one reading of the clock serves both.
    const body = response?.body;
    // An earlier attempt's answer is not the end of a request that failed after it.
    const { answeredMs, responseDetails } = request.info;
    const atOnce = response !== undefined && answeredMs > 0 && responseDetails === 'via_upstream' && (body === undefined || isWhole(body));
    ended.durationMs = (atOnce ? answeredMs : clock.now()) - request.startMs;
    for (let i = 0; i < observers.length; i++) observers[i]!.done(ended);
  };
  return (next) => (request, reply) => {
    const before = request.onDone;
    request.onDone =
      before === undefined
        ? done
        : (response, ofRequest) => {
            before(response, ofRequest);
            done(response, ofRequest);
          };
    for (let i = 0; i < starters.length; i++) starters[i]!.started!(request);
    next(request, reply);
  };
}
