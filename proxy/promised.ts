/** Between the two ways of asking for an answer: `Send`, which calls back, and `Service`, which promises. */
import { ProxyError } from './errors.ts';
import type { ProxyRequest, ProxyResponse, Reply, Send, Service } from './service.ts';

class Promised implements Reply {
  readonly answered: (response: ProxyResponse) => void;
  readonly failed: (error: ProxyError) => void;

  constructor(resolve: (response: ProxyResponse) => void, reject: (error: ProxyError) => void) {
    this.answered = resolve;
    this.failed = reject;
  }
}

/** The outcome as a promise; rejects with `ProxyError`. */
export function promised(send: Send, request: ProxyRequest): Promise<ProxyResponse> {
  return new Promise((resolve, reject) => send(request, new Promised(resolve, reject)));
}

/** A `Send` as a service. */
export function promising(send: Send): Service {
  return (request) => promised(send, request);
}

/** A service as a `Send`. */
export function calledBack(service: Service): Send {
  return (request, reply) => {
    const failed = (error: unknown): void => reply.failed(ProxyError.from(error));
    // Also what the reply throws, or nobody would ever answer.
    service(request)
      .then((response) => reply.answered(response), failed)
      .catch(failed);
  };
}
