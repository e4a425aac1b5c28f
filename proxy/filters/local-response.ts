/** Outermost around every service: what fails inside becomes an answer, and each answer gets what every answer has. */
import type { ProxyError } from '../errors.ts';
import type { Headers } from '../headers.ts';
import { errorResponse } from '../http1/error-response.ts';
import type { Layer, ProxyRequest, ProxyResponse, Reply } from '../service.ts';

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
export function answers(options: AnswerOptions = {}): Layer {
  return (next) => (request, reply) => next(request, new Answering(options, request, reply));
}

class Answering implements Reply {
  readonly #options: AnswerOptions;
  readonly #request: ProxyRequest;
  readonly #reply: Reply;

  constructor(options: AnswerOptions, request: ProxyRequest, reply: Reply) {
    this.#options = options;
    this.#request = request;
    this.#reply = reply;
  }

  answered(response: ProxyResponse): void {
    const info = this.#request.info;
    if (info.responseDetails === '' && info.endpoint !== undefined) {
      info.responseDetails = VIA_UPSTREAM;
      if (this.#options.tellTime === true) tellServiceTime(response.headers, info.answeredMs - this.#request.startMs);
      this.#reply.answered(response);
    } else if (info.responseDetails === VIA_UPSTREAM) this.#reply.answered(response);
    else {
      if (info.responseDetails === '') info.responseDetails = 'direct_response';
      this.#own(response);
    }
  }

  failed(error: ProxyError): void {
    const request = this.#request;
    if (error.code !== 'downstreamReset') {
      this.#own(errorResponse(request, error));
      return;
    }
    request.info.responseFlags = 'DC';
    request.info.responseDetails = error.row.details;
    this.#reply.failed(error);
  }

  /** An answer that the proxy makes itself. */
  #own(response: ProxyResponse): void {
    const { localReply } = this.#options;
    this.#reply.answered(localReply === undefined ? response : localReply(this.#request, response));
  }
}

const VIA_UPSTREAM = 'via_upstream';
const SERVICE_TIME = 'x-envoy-upstream-service-time';
/** Most answers take few milliseconds. */
const SMALL = Array.from({ length: 256 }, (_, ms) => ({ text: String(ms), line: `${SERVICE_TIME}: ${ms}\r\n` }));

function tellServiceTime(headers: Headers, ms: number): void {
  const whole = Math.max(0, Math.round(ms));
  const small = SMALL[whole];
  if (small === undefined) headers.put(SERVICE_TIME, String(whole));
  else headers.putLine(SERVICE_TIME, small.text, small.line);
}
