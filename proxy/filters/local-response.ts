/** Outermost around every service: what fails inside becomes an answer, and each answer gets what every answer has. */
import { ProxyError } from '../errors.ts';
import { errorResponse } from '../http1/error-response.ts';
import type { Filter, ProxyRequest, ProxyResponse } from '../service.ts';

/** What the connection manager says about its answers. */
export interface AnswerOptions {
  /** Tell how long the endpoint took, in `x-envoy-upstream-service-time`. Default false. */
  readonly tellTime?: boolean;
  /** Rewrites what the proxy answers itself (local_reply_config). */
  readonly localReply?: ((request: ProxyRequest, response: ProxyResponse) => ProxyResponse) | undefined;
}

/**
 * Outermost but for observation: what fails inside is answered here, and each answer gets what every answer has. A client that went away
 * gets none, its error goes on to the codec.
 */
export function answers(options: AnswerOptions = {}): Filter {
  const { tellTime = false, localReply } = options;
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
        if (tellTime) response.headers.put('x-envoy-upstream-service-time', milliseconds(info.answeredMs - request.startMs));
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
const SMALL: readonly string[] = Array.from({ length: 256 }, (_, value) => String(value));

/** Whole milliseconds as text; most answers take few. */
function milliseconds(value: number): string {
  const whole = Math.max(0, Math.round(value));
  return SMALL[whole] ?? String(whole);
}
