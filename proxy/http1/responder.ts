/** The answering half of a server connection: one exchange at a time, from the service's promise to the last byte written. */
import { ProxyError } from '../errors.ts';
import type { Headers } from '../headers.ts';
import type { Body, ProxyRequest, ProxyResponse, Reply } from '../service.ts';
import { isWhole } from './body.ts';
import { errorResponse } from './error-response.ts';
import type { Output } from './output.ts';
import { cutOff } from './reading.ts';
import { continueLine, interimHead, responseHead } from './respond.ts';
import type { Http1Options } from './options.ts';
import { BodyWriter, bodyLength, writeMessage } from './write.ts';
import type { WriterOwner } from './write.ts';

/** The connection that answers go to. */
export interface ResponderOwner {
  /** Must this answer be the connection's last? Asked when its head is written. */
  endsAfterAnswer(): boolean;
  /** The last byte is with the socket, or there will be none. */
  answerWritten(): void;
  /** The service switched protocols; the head is written. */
  tunnelOpened(response: ProxyResponse): void;
}

export class Responder implements WriterOwner, Reply {
  readonly #output: Output;
  readonly #owner: ResponderOwner;
  readonly #options: Http1Options;
  #writer: BodyWriter | undefined;
  #continueWanted = false;
  #minor = 1;
  /** The request that is under way. */
  request: ProxyRequest | undefined;
  response: ProxyResponse | undefined;
  headSent = false;
  /** May the connection take another request after this one? */
  keepAlive = true;

  constructor(output: Output, owner: ResponderOwner, options: Http1Options) {
    this.#output = output;
    this.#owner = owner;
    this.#options = options;
  }

  /** Starts an exchange. `continueWanted`: the client waits for 100 before it sends its body. */
  begin(request: ProxyRequest, minor: number, keepAlive: boolean, continueWanted: boolean): void {
    this.request = request;
    this.response = undefined;
    this.headSent = false;
    this.keepAlive = keepAlive;
    this.#minor = minor;
    this.#continueWanted = continueWanted;
    if (minor === 1) request.onInterim = this.#onInterim;
  }

  /** Asks for the answer. What comes for an exchange that is over by then is dropped. */
  serve(request: ProxyRequest): void {
    try {
      this.#options.send(request, this);
    } catch (error) {
      this.failed(ProxyError.from(error));
    }
  }

  // One exchange runs at a time, and after one that was given up no other begins: the reply need not know which one it is for.

  readonly #onInterim = (status: number, reason: string, headers: Headers): void => this.#interim(status, reason, headers);

  /** Somebody reads the request's body: the client may send it. */
  sendContinue(): void {
    if (!this.#continueWanted || this.headSent || this.request === undefined) return;
    this.#continueWanted = false;
    this.#output.later(continueLine);
  }

  /** Answers with the error, unless an answer is on its way already. */
  failed(error: ProxyError): void {
    const request = this.request;
    if (request === undefined || this.headSent) return;
    noteError(request, error);
    this.answered((this.#options.errorResponse ?? errorResponse)(request, error));
  }

  answered(response: ProxyResponse): void {
    const request = this.request;
    if (request === undefined || this.headSent) {
      dropResponse(response);
      return;
    }
    let head: string;
    const { body, status } = response;
    const bodiless = body === undefined || request.method === 'HEAD' || status === 204 || status === 304;
    // Only a close can end a body of unknown length for a client of HTTP/1.0.
    const closeDelimited = !bodiless && this.#minor === 0 && body.length === undefined && !isWhole(body);
    if (closeDelimited || this.#owner.endsAfterAnswer()) this.keepAlive = false;
    try {
      head = responseHead(request, response, bodiless, closeDelimited, this.#minor, this.keepAlive, this.#options.settings);
    } catch (error) {
      // A filter made a head that cannot be written; the answer to that can be.
      dropResponse(response);
      this.failed(ProxyError.from(error));
      return;
    }
    this.headSent = true;
    this.response = response;
    if (response.tunnel !== undefined) {
      this.#output.later(head);
      this.#owner.tunnelOpened(response);
    } else if (bodiless) {
      body?.cancel(new ProxyError('internal', 'This answer has no body.'));
      this.#output.later(head);
      this.#owner.answerWritten();
    } else if (isWhole(body)) {
      request.info.responseBytes = bodyLength(body)!;
      writeMessage(this.#output, head, body);
      this.#owner.answerWritten();
    } else this.#stream(head, body, closeDelimited);
  }

  #stream(head: string, body: Body, closeDelimited: boolean): void {
    const socket = this.#output.now();
    const writer = new BodyWriter(socket, this, body, body.length !== undefined ? 'length' : closeDelimited ? 'none' : 'chunked');
    this.#writer = writer;
    socket.cork();
    socket.write(head, 'latin1');
    writer.start();
    socket.uncork();
  }

  #interim(status: number, reason: string, headers: Headers): void {
    if (this.request === undefined || this.headSent || status === 101) return;
    if (status === 100) {
      if (!this.#continueWanted && !this.#options.settings.proxy100Continue) return;
      this.#continueWanted = false;
    }
    this.#output.later(interimHead(status, reason, headers));
  }

  /** The socket has room again. */
  drained(): void {
    this.#writer?.drained();
  }

  /** Content bytes of the answer so far; the idle time-out watches them grow. */
  get writtenBytes(): number {
    return this.#writer?.bytes ?? 0;
  }

  bodyWritten(writer: BodyWriter): void {
    if (this.request !== undefined) this.request.info.responseBytes = writer.bytes;
    this.#writer = undefined;
    this.#owner.answerWritten();
  }

  bodyBroken(writer: BodyWriter, error: ProxyError): void {
    this.#writer = undefined;
    if (this.request !== undefined) {
      this.request.info.responseBytes = writer.bytes;
      noteError(this.request, error);
    }
    // Never a clean end: the client must see that something is missing (RFC 9112 section 8).
    cutOff(this.#output.now());
  }

  /** The client is gone: stops the flow of the answer and the work on the request. */
  giveUp(error: ProxyError): void {
    const request = this.request;
    const writer = this.#writer;
    this.#writer = undefined;
    if (writer !== undefined && request !== undefined) request.info.responseBytes = writer.bytes;
    writer?.stop(error);
    if (request === undefined) return;
    noteError(request, error);
    request.abort?.(error);
    this.done();
  }

  /** The exchange is over. */
  done(): void {
    const request = this.request;
    if (request === undefined) return;
    const response = this.response;
    this.request = undefined;
    this.response = undefined;
    request.onDone?.(response, request);
  }
}

function noteError(request: ProxyRequest, error: ProxyError): void {
  const { flag, details } = error.row;
  if (request.info.responseFlags === '') request.info.responseFlags = flag;
  if (request.info.responseDetails === '' || request.info.responseDetails === 'via_upstream') request.info.responseDetails = details;
}

/** Nobody wants this answer any more: frees what it holds. */
function dropResponse(response: ProxyResponse): void {
  response.body?.cancel(new ProxyError('downstreamReset'));
  const tunnel = response.tunnel;
  if (tunnel === undefined) return;
  tunnel.socket.destroy();
  tunnel.closed();
}
