/** One request in a pool: waiting, on a connection, or over; and whether it may be sent once more when its connection dies under it. */
import type { ProxyError } from '../errors.ts';
import { isWhole } from '../http1/body.ts';
import type { ClientConnection, Exchange } from '../http1/client.ts';
import type { ProxyRequest, ProxyResponse, Reply } from '../service.ts';

/** Methods that may be sent twice (RFC 9110 section 9.2.2). */
export const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

/** Subclass it with what the owner of the attempt wants to know: `answered` and `over`, of which one comes, once. */
export abstract class PoolExchange implements Exchange {
  readonly request: ProxyRequest;
  /** The pool's notes: where it is, whether it is on the queue and counted as pending, whether it was sent a second time. */
  connection: ClientConnection | undefined = undefined;
  waiting = false;
  repeated = false;
  /** Sends it again on a fresh connection; set by the pool. */
  repeat: ((exchange: PoolExchange) => void) | undefined = undefined;

  constructor(request: ProxyRequest) {
    this.request = request;
  }

  abstract answered(response: ProxyResponse): void;

  /** It failed for good. */
  abstract over(error: ProxyError): void;

  failed(error: ProxyError, unanswered: boolean): void {
    if (unanswered && !this.repeated && this.repeat !== undefined && this.#mayRepeat()) {
      this.repeated = true;
      this.repeat(this);
      return;
    }
    this.over(error);
  }

  /**
   * RFC 9112 section 9.3.1: a connection that was used before and closes without a byte of an answer was most likely closed while idle.
   * Sent again only if the method is idempotent and the body is still all here; the endpoint may have seen the first one.
   */
  #mayRepeat(): boolean {
    const { method, body, upgrade } = this.request;
    if (this.connection === undefined || this.connection.exchanges < 2) return false;
    return IDEMPOTENT.has(method) && upgrade === undefined && (body === undefined || isWhole(body));
  }
}

/** An exchange for whoever only waits for the outcome. */
export class PlainExchange extends PoolExchange {
  readonly #reply: Reply;

  constructor(request: ProxyRequest, reply: Reply) {
    super(request);
    this.#reply = reply;
  }

  answered(response: ProxyResponse): void {
    this.#reply.answered(response);
  }

  over(error: ProxyError): void {
    this.#reply.failed(error);
  }
}
