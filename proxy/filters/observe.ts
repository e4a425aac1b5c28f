/** Tells logs, metrics and traces about each exchange: one clock reading and one call when it is over. */
import type { Exchange } from './format.ts';
import type { Filter, ProxyRequest } from '../service.ts';
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

/** The outermost filter. Without observers it is absent. */
export function observe(observers: readonly Observer[], clock: Clock): Filter | undefined {
  if (observers.length === 0) return undefined;
  const starters = observers.filter((observer) => observer.started !== undefined);
  return (next) => (request) => {
    const before = request.onDone;
    request.onDone = (response) => {
      before?.(response);
      const durationMs = clock.now() - request.startMs;
      const exchange: Exchange = { request, response, durationMs, startWallMs: clock.wallMs() - durationMs };
      for (const observer of observers) observer.done(exchange);
    };
    for (const observer of starters) observer.started!(request);
    return next(request);
  };
}
