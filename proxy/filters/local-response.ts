/** Outermost around every service: what fails inside becomes an answer, and each answer gets what every answer has. */
import { ProxyError } from '../errors.ts';
import { errorResponse } from '../http1/error-response.ts';
import type { Filter, ProxyRequest, ProxyResponse } from '../service.ts';
import type { Clock } from '../../lib/clock.ts';

/** What the connection manager says about its answers. */
export interface AnswerOptions {
  /** Tells how long the endpoint took, in `x-envoy-upstream-service-time`. Undefined = not told. */
  readonly clock?: Clock | undefined;
  /** Rewrites what the proxy answers itself (local_reply_config). */
  readonly localReply?: ((request: ProxyRequest, response: ProxyResponse) => ProxyResponse) | undefined;
}

/**
 * Outermost but for observation: what fails inside is answered here, and each answer gets what every answer has. A client that went away
 * gets none, its error goes on to the codec.
 */
export function answers(options: AnswerOptions = {}): Filter {
  const { clock, localReply } = options;
  const own = (request: ProxyRequest, response: ProxyResponse): ProxyResponse =>
    localReply === undefined ? response : localReply(request, response);
  return (next) => (request) =>
    next(request).then(
      (response) => {
        const info = request.info;
        if (info.responseDetails !== '') return info.responseDetails === VIA_UPSTREAM ? response : own(request, response);
        if (info.endpoint === undefined) {
          info.responseDetails = 'direct_response';
          return own(request, response);
        }
        info.responseDetails = VIA_UPSTREAM;
        if (clock !== undefined) response.headers.set('x-envoy-upstream-service-time', String(Math.round(clock.now() - request.startMs)));
        return response;
      },
      (thrown: unknown) => {
        const error = ProxyError.from(thrown);
        if (error.code !== 'downstreamReset') return own(request, errorResponse(request, error));
        request.info.responseFlags = 'DC';
        request.info.responseDetails = error.row.details;
        throw error;
      },
    );
}

const VIA_UPSTREAM = 'via_upstream';
