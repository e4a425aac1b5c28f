/** Serves discovery on a grpc-js server: one session per stream, written with back-pressure, ended when it misbehaves. */
import { Metadata, status } from '@grpc/grpc-js';
import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import { constants } from 'node:http2';
import type { Clock } from '../lib/clock.ts';
import { Doorway } from './doorway.ts';
import type { Beginner } from './doorway.ts';
import type { Intake } from './grpc-intake.ts';
import { http2StreamOf, peerOf, readLongMessages, writePieces } from './grpc-inside.ts';
import { MESSAGE_BYTES_MAX } from './grpc-options.ts';
import { LongMessage, SCRATCH_BYTES, Scratch } from './message-decoder.ts';
import { responsePieces } from './resources/discovery.ts';
import { repeatsLists } from './resources/request-lists.ts';
import { discoveryMethods } from './resources/services.ts';
import type { DiscoveryMethod } from './resources/services.ts';
import { CODES, StreamError, factsOf } from './session/messages.ts';
import type { DiscoveryRequest, DiscoveryResponse, Mode, NodeInfo } from './session/messages.ts';
import { ServerSession } from './session/server.ts';
import type { ResourceSet, ServerEvent, TypeStatus } from './session/server.ts';
import { StrangeNames } from './session/subscription.ts';
import { Turns } from './turns.ts';
import type { Task } from './turns.ts';

/** What is known of the other end by the connection itself. */
export interface Peer {
  /** `10.0.0.7:41234`; `unknown` for a Unix socket. */
  readonly address: string;
  readonly transport: 'plaintext' | 'tls';
  /** DER of the verified client certificate; undefined when there is none. */
  readonly certificate: Uint8Array | undefined;
  /** Metadata of the stream, names in lower case; binary entries are left out. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** One stream, from its first request on. */
export interface ServerStream {
  /** Counts up over the life of the process. */
  readonly id: number;
  readonly mode: Mode;
  /** Undefined on an aggregated stream. */
  readonly typeUrl: string | undefined;
  readonly peer: Peer;
  readonly node: NodeInfo | undefined;
  /** Gives the stream a newer set; it is sent soon, since streams take turns. The newest one wins over what was not sent yet. */
  publish(resources: ResourceSet): void;
  /** Goes with the time: read it at once. */
  status(): readonly TypeStatus[];
  /** Names and versions of what the client was sent, or said that it has. */
  sent(typeUrl: string): Iterable<readonly [name: string, version: string]>;
  /** The caller has shown who it is: the stream and its connection no longer count among those of strangers, which give way to each other. */
  prove(): void;
  /** Ends the stream with a gRPC status. */
  close(code: number, message: string): void;
}

export interface DiscoveryHandler {
  /** The first request came. Throw (or reject with) a StreamError to refuse; usually it ends in `stream.publish`, at once or later. */
  identified(stream: ServerStream, node: NodeInfo): void | Promise<void>;
  event?(stream: ServerStream, event: ServerEvent): void;
  /** The stream has taken this set: from now on `status` speaks of it. Also when nothing in it has to be sent. */
  published?(stream: ServerStream, resources: ResourceSet): void;
  /** Once for every stream that was identified; `error` is why, undefined when the client ended it in order. */
  closed?(stream: ServerStream, error: StreamError | undefined): void;
}

export interface ServeDiscoveryOptions {
  readonly clock: Clock;
  /** What this server's ports speak; a server with a certificate is `tls`. */
  readonly transport: 'plaintext' | 'tls';
  /** Streams at once, more are refused with UNAVAILABLE; default 10,000. */
  readonly streamsMax?: number;
  /** A client that has not taken a message after this long, and a second more for every megabyte, loses its stream; default 30,000. */
  readonly stallMsMax?: number;
  readonly namesMax?: number;
  readonly responseBytesMax?: number;
  readonly holdMsMax?: number;
  /** Characters of names that no resource has, of all streams together, and a hundred for each name; default 32 Mi. */
  readonly strangeNameCharsMax?: number;
  /** Streams that have not been proven; a new one takes the place of the oldest. Default 1,000. */
  readonly strangersMax?: number;
  /** Such a stream ends after this long; default 15,000. */
  readonly strangerMsMax?: number;
  /** Told of the connections whose callers have shown who they are. */
  readonly intake?: Pick<Intake, 'proven'>;
}

/** Requests come as they were sent: they are decoded in the stream's turn. */
type Received = Buffer | LongMessage;
type Call = ServerDuplexStream<Received, DiscoveryResponse>;

/** Adds the aggregated and the per-type discovery services to `server`. The answer ends all streams and refuses new ones. */
export function serveDiscovery(
  server: Server,
  handler: DiscoveryHandler,
  options: ServeDiscoveryOptions,
): { close(): void; readonly streams: number } {
  const open = new Set<StreamBinding>();
  const turns = new Turns(options.clock);
  const doorway = new Doorway(options.clock);
  const scratch = new Scratch();
  const strangeNames = new StrangeNames(options.strangeNameCharsMax ?? 32 * 1024 * 1024);
  /** In order of arrival. */
  const strangers = new Set<StreamBinding>();
  const strangersMax = options.strangersMax ?? 1_000;
  let closed = false;
  let nextId = 1;
  const serve = (method: DiscoveryMethod, call: Call): void => {
    if (closed || open.size - strangers.size >= (options.streamsMax ?? 10_000)) {
      call.on('error', ignore);
      call.emit('error', { code: CODES.unavailable, details: closed ? 'the control plane is stopping' : 'too many streams' });
      return;
    }
    const binding = new StreamBinding(
      nextId++,
      method,
      call,
      handler,
      { ...options, turns, doorway, scratch, strangeNames },
      {
        proven: () => {
          strangers.delete(binding);
          options.intake?.proven(binding.peer.address);
        },
        closed: () => {
          strangers.delete(binding);
          open.delete(binding);
        },
      },
    );
    open.add(binding);
    strangers.add(binding);
    if (strangers.size <= strangersMax) return;
    const [oldest] = strangers;
    oldest!.close(CODES.unavailable, 'too many streams whose callers have not shown who they are');
  };
  for (const method of discoveryMethods()) {
    server.register(
      method.definition.path,
      (call: Call) => serve(method, call),
      method.definition.responseSerialize,
      (message: Received) => message,
      'bidi',
    );
  }
  return {
    get streams() {
      return open.size;
    },
    close: () => {
      closed = true;
      for (const binding of open) binding.close(CODES.unavailable, 'the control plane is stopping');
    },
  };
}

interface BindingEnds {
  readonly proven: () => void;
  readonly closed: () => void;
}

interface BindingOptions extends ServeDiscoveryOptions {
  readonly turns: Turns;
  readonly doorway: Doorway;
  readonly scratch: Scratch;
  readonly strangeNames: StrangeNames;
}

class StreamBinding implements ServerStream, Task, Beginner {
  readonly id: number;
  readonly mode: Mode;
  readonly typeUrl: string | undefined;
  readonly peer: Peer;
  readonly #call: Call;
  readonly #handler: DiscoveryHandler;
  readonly #options: BindingOptions;
  readonly #session: ServerSession;
  readonly #decode: (bytes: Buffer) => DiscoveryRequest;
  /** Requests that wait for a turn; reading stops at the first, so there are no more of them than grpc-js had read already. */
  readonly #inbox: (Received | DiscoveryRequest)[] = [];
  /** The handler looks at the node. */
  #admitting = false;
  #published: ResourceSet | undefined;
  readonly #ends: BindingEnds;
  #identified = false;
  #writing = false;
  #closed = false;
  #cancelStall: (() => void) | undefined;
  #cancelStranger: () => void;

  constructor(id: number, method: DiscoveryMethod, call: Call, handler: DiscoveryHandler, options: BindingOptions, ends: BindingEnds) {
    this.id = id;
    this.mode = method.mode;
    this.typeUrl = method.typeUrl;
    this.peer = peerOf(call, options.transport);
    this.#call = call;
    this.#handler = handler;
    this.#options = options;
    this.#decode = method.definition.requestDeserialize;
    this.#ends = ends;
    const { clock, namesMax, responseBytesMax, holdMsMax } = options;
    this.#session = new ServerSession({
      mode: method.mode,
      clock,
      ...(method.typeUrl === undefined ? {} : { typeUrl: method.typeUrl }),
      ...(namesMax === undefined ? {} : { namesMax }),
      ...(responseBytesMax === undefined ? {} : { responseBytesMax }),
      ...(holdMsMax === undefined ? {} : { holdMsMax }),
      strangeNames: options.strangeNames,
      onEvicted: () =>
        this.close(CODES.resourceExhausted, 'all streams together subscribe to too many names that do not exist, and this one to most'),
      onWork: () => options.turns.ask(this),
      onEvent: (event) => {
        if (this.#identified) handler.event?.(this, event);
      },
    });
    const strangerMsMax = options.strangerMsMax ?? 15_000;
    this.#cancelStranger = clock.after(strangerMsMax, () =>
      this.close(CODES.unauthenticated, `who calls has not shown who it is within ${strangerMsMax} ms`),
    );
    call.on('end', () => this.#end(undefined));
    call.on('cancelled', () => this.#end(new StreamError(status.CANCELLED, 'the client cancelled the stream or its connection broke')));
    call.on('error', (error: Error & { code?: number }) => this.#end(new StreamError(error.code ?? status.UNKNOWN, error.message)));
    call.on('close', () => this.#end(undefined));
    readLongMessages(call, MESSAGE_BYTES_MAX, options.scratch);
    options.doorway.enter(this);
  }

  begin(): void {
    this.#call.on('data', (message: Received) => this.#arrived(message));
  }

  get node(): NodeInfo | undefined {
    return this.#session.node;
  }

  /** The session knows at once, so its state is true at once; what is costly, joining and writing bytes, waits for the turn. */
  publish(resources: ResourceSet): void {
    if (this.#closed) return;
    this.#published = resources;
    this.#session.publish(resources);
    this.#options.turns.ask(this);
  }

  turn(): void {
    if (this.#closed) return;
    if (!this.#admitting && this.#inbox.length > 0) void this.#receive(this.#inbox.shift()!);
    const resources = this.#published;
    this.#published = undefined;
    this.#flush();
    if (resources !== undefined) this.#handler.published?.(this, resources);
  }

  status(): readonly TypeStatus[] {
    return this.#session.status();
  }

  sent(typeUrl: string): Iterable<readonly [name: string, version: string]> {
    return this.#session.sent(typeUrl);
  }

  prove(): void {
    if (this.#closed) return;
    this.#cancelStranger();
    this.#ends.proven();
  }

  close(code: number, message: string): void {
    this.#end(new StreamError(code, message), true);
  }

  #arrived(message: Received): void {
    if (this.#closed) return;
    this.#call.pause();
    try {
      this.#inbox.push(this.#repeated(message) ?? message);
      this.#options.turns.ask(this);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** After an outage a thousand clients send the same long lists: decoded they need no memory of their own while they wait for a turn. */
  #repeated(message: Received): DiscoveryRequest | undefined {
    if (!(message instanceof LongMessage) || message.bytes > SCRATCH_BYTES || this.mode !== 'delta') return undefined;
    const request = message.readIn((bytes) => (repeatsLists(bytes) ? decoded(this.#decode, bytes) : undefined));
    if (request !== undefined) message.release();
    return request;
  }

  /** Nothing of a decoded request is a view of its bytes. */
  #decoded(message: Received): DiscoveryRequest {
    if (!(message instanceof LongMessage)) return decoded(this.#decode, message);
    const request = message.readIn((bytes) => decoded(this.#decode, bytes));
    message.release();
    return request;
  }

  /** One request at a time: while the handler looks at the node, nothing more is read. */
  async #receive(next: Received | DiscoveryRequest): Promise<void> {
    try {
      const first = this.#session.node === undefined;
      this.#session.receive('mode' in next ? next : this.#decoded(next));
      if (first) {
        this.#identified = true;
        const admitted = this.#handler.identified(this, this.#session.node!);
        if (admitted !== undefined) {
          this.#admitting = true;
          await admitted;
          this.#admitting = false;
        }
        this.#options.doorway.leave(this);
      }
      if (this.#closed) return;
      if (this.#inbox.length > 0) this.#options.turns.ask(this);
      else this.#call.resume();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    const known = error instanceof StreamError ? error : new StreamError(CODES.internal, `cannot serve the stream: ${messageOf(error)}`);
    this.#end(known, true);
  }

  /** One message is on its way at most; the rest is still a choice, so the newest wins and nothing piles up. */
  #flush(): void {
    if (this.#writing || this.#closed) return;
    const response = this.#session.next();
    if (response === undefined) return;
    this.#writing = true;
    const { bytes } = factsOf(response.resources);
    const stallMs = (this.#options.stallMsMax ?? 30_000) + Math.ceil(bytes / BYTES_PER_MS_MIN);
    this.#cancelStall = this.#options.clock.after(stallMs, () =>
      this.#abort(`did not take a message of ${bytes} bytes within ${stallMs} ms`),
    );
    const written = (): void => {
      this.#cancelStall?.();
      this.#writing = false;
      this.#options.turns.ask(this);
    };
    const stream = bytes >= SHARED_BYTES_MIN && bytes <= SHARED_BYTES_MAX ? http2StreamOf(this.#call) : undefined;
    if (stream === undefined || stream.destroyed) this.#call.write(response, written);
    else {
      this.#call.sendMetadata(new Metadata());
      writePieces(stream, responsePieces(response), written);
    }
  }

  /** A status would wait behind the bytes that are not read, so the HTTP/2 stream is reset. */
  #abort(message: string): void {
    const stream = http2StreamOf(this.#call);
    this.#end(new StreamError(CODES.unavailable, message), stream === undefined);
    stream?.close(constants.NGHTTP2_CANCEL);
  }

  #end(error: StreamError | undefined, tell = false): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelStall?.();
    this.#cancelStranger();
    this.#options.turns.forget(this);
    this.#options.doorway.leave(this);
    this.#session.close();
    if (tell && error !== undefined) this.#call.emit('error', { code: error.code, details: error.message });
    else if (error === undefined) this.#call.end();
    this.#ends.closed();
    if (this.#identified) this.#handler.closed?.(this, error);
  }
}

/** grpc-js copies each message twice. Long ones are the same for many streams, so they go past it, and the same bytes go to every stream. */
const SHARED_BYTES_MIN = 16_384;
/** What may be too long for a message as a whole is refused by grpc-js. */
const SHARED_BYTES_MAX = MESSAGE_BYTES_MAX / 2;

/** A client slower than a megabyte a second holds up memory that others need. */
const BYTES_PER_MS_MIN = 1_000;

function decoded(decode: (bytes: Buffer) => DiscoveryRequest, bytes: Buffer): DiscoveryRequest {
  try {
    return decode(bytes);
  } catch (error) {
    // What is too much says so itself.
    if (error instanceof StreamError) throw error;
    throw new StreamError(CODES.internal, `a request cannot be decoded: ${messageOf(error)}`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function ignore(): void {
  // The refusal itself is the answer; a broken connection adds nothing to it.
}
