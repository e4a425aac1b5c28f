/** The door of a gRPC server: takes its connections, and bounds what callers who have not shown who they are, or send more than is read, can make it hold. */
import { createServer } from 'node:net';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';
import { constants } from 'node:http2';
import type { ServerHttp2Stream } from 'node:http2';
import { ServerInterceptingCall, status } from '@grpc/grpc-js';
import type { Server, ServerCredentials, ServerInterceptingCallInterface, ServerInterceptor } from '@grpc/grpc-js';
import type { Clock } from '../lib/clock.ts';
import type { DescriptorRoom } from '../lib/descriptors.ts';
import { nextSlice } from '../lib/slices.ts';
import type { CallLayer } from './grpc-inside.ts';
import { MESSAGE_BYTES_MAX } from './grpc-options.ts';
import { HEAD_BYTES } from './message-decoder.ts';

export interface IntakeOptions {
  readonly clock: Clock;
  /** Connections at once; more are closed. Default 12,000. */
  readonly connectionsMax?: number;
  /** Connections whose caller has not shown who it is; a new one takes the place of the oldest. Default 2,000. */
  readonly strangersMax?: number;
  /** Such a connection is closed after this long; default 60,000. */
  readonly strangerMsMax?: number;
  /** Bytes of messages that have begun and not ended, of all callers together; beyond it the largest goes. Default 128 MiB. */
  readonly partialBytesMax?: number;
  /** Largest message of a stranger; default 16 MiB, as much as it may subscribe to. Others may send what discovery takes. */
  readonly strangerMessageBytesMax?: number;
  /** Told of each connection. */
  readonly descriptors?: DescriptorRoom | undefined;
}

export interface Intake {
  /** For `new grpc.Server({ interceptors })`. */
  readonly interceptor: ServerInterceptor;
  /** Takes connections for `server`; answers the port. Rejects when the address is taken. */
  listen(server: Server, credentials: ServerCredentials, address: { readonly host: string; readonly port: number }): Promise<number>;
  /** The caller at the other end (`10.0.0.7:41234`) has shown who it is. */
  proven(peer: string): void;
  readonly connections: number;
  /** Stops taking connections; those that are open are the gRPC server's to end. */
  close(): void;
}

interface Connection {
  readonly socket: Socket;
  /** Address and port of the caller. */
  readonly key: string;
  /** Hands it to the gRPC server. */
  readonly begin: () => void;
  /** When its bytes were read first, and when a part of a long message came last. */
  begunMs: number;
  longMs: number;
  proven: boolean;
  streams: number;
}

/** How far a stream is in its message. */
interface Partial {
  readonly stream: ServerHttp2Stream;
  readonly call: ServerInterceptingCallInterface;
  readonly messageBytesMax: () => number;
  head: number[];
  /** Still to come of the message; 0 = between two. */
  leftBytes: number;
  heldBytes: number;
}

/** Streams at once of a stranger; one for each service of discovery, and those beside it. */
const STRANGER_STREAMS_MAX = 16;
/**
 * Connections that begin at a time. One pass over the sockets reads all that has come, 64 KiB of each, and has no bound of its own: after an
 * outage a thousand clients come at once, each with long first requests.
 */
const BEGINNING_MAX = 16;
/** As many of them begin in a turn of the event loop. */
const ADMITTED_MAX = 4;
/** Who has sent nothing long for this time gives its place to the next one. */
const QUIET_MS = 60;
/** As does who goes on for this time. */
const BEGINNING_MS_MAX = 250;
const LOOK_MS = 10;
/** A part of a message from this size on is one of a long message. */
const LONG_BYTES_MIN = 4_096;
const SWEEP_MS = 1_000;
/** A client may read its status for this long before a stream that it does not end itself is reset. */
const LINGER_MS = 200;

export function createIntake(options: IntakeOptions): Intake {
  const { clock } = options;
  const strangersMax = options.strangersMax ?? 2_000;
  const strangerMsMax = options.strangerMsMax ?? 60_000;
  const strangerMessageBytesMax = options.strangerMessageBytesMax ?? 16 * 1024 * 1024;
  const connections = new Map<string, Connection>();
  /** In the order in which they began. */
  const strangers = new Map<string, Connection>();
  /** Those whose bytes are not read yet. */
  const waiting = new Set<Connection>();
  const beginning = new Set<Connection>();
  let looking = false;
  const partials = new Partials(clock, options.partialBytesMax ?? 128 * 1024 * 1024);
  let listener: NetServer | undefined;
  let cancelSweep = (): void => undefined;
  let closed = false;

  const take = (socket: Socket, inject: (socket: Socket) => void): void => {
    options.descriptors?.accepted(socket);
    const key = `${socket.remoteAddress}:${socket.remotePort}`;
    const connection: Connection = { socket, key, begin: () => inject(socket), begunMs: 0, longMs: 0, proven: false, streams: 0 };
    connections.set(key, connection);
    // Until the server has it.
    socket.on('error', closes);
    socket.once('close', () => {
      waiting.delete(connection);
      beginning.delete(connection);
      if (connections.get(key) === connection) connections.delete(key);
      if (strangers.get(key) === connection) strangers.delete(key);
    });
    waiting.add(connection);
    if (!looking) admit();
  };
  const admit = (): void => {
    looking = false;
    const nowMs = clock.now();
    for (const one of beginning) if (nowMs - one.longMs >= QUIET_MS || nowMs - one.begunMs >= BEGINNING_MS_MAX) beginning.delete(one);
    let places = Math.min(ADMITTED_MAX, BEGINNING_MAX - beginning.size);
    for (const connection of waiting) {
      if (places-- === 0) break;
      connection.begunMs = connection.longMs = nowMs;
      begin(connection);
    }
    if (waiting.size === 0 || closed) return;
    looking = true;
    if (beginning.size < BEGINNING_MAX) nextSlice(clock, admit);
    else clock.after(LOOK_MS, admit);
  };
  const begin = (connection: Connection): void => {
    waiting.delete(connection);
    beginning.add(connection);
    strangers.set(connection.key, connection);
    if (strangers.size > strangersMax) {
      const [oldest] = strangers.values();
      strangers.delete(oldest!.key);
      oldest!.socket.destroy();
    }
    connection.begin();
    // Only now: what the kernel has of it goes to the session and not into the socket's own buffer.
    connection.socket.resume();
  };
  const hear = (connection: Connection, stream: ServerHttp2Stream): void => {
    stream.prependListener('data', (chunk: Buffer) => {
      if (chunk.length >= LONG_BYTES_MIN) connection.longMs = clock.now();
    });
  };
  const sweep = (): void => {
    cancelSweep = clock.after(SWEEP_MS, sweep);
    for (const { socket, begunMs } of strangers.values()) {
      if (clock.now() - begunMs < strangerMsMax) break;
      socket.destroy();
    }
  };
  return {
    interceptor: (_method, call) => {
      const { stream, incomingEncoding } = call as unknown as CallLayer;
      if (stream === undefined) return new ServerInterceptingCall(call);
      const { remoteAddress, remotePort } = stream.session?.socket ?? {};
      const connection = connections.get(`${remoteAddress}:${remotePort}`);
      if (connection !== undefined) {
        connection.streams += 1;
        if (beginning.has(connection)) hear(connection, stream);
        stream.once('close', () => (connection.streams -= 1));
        if (!connection.proven && connection.streams > STRANGER_STREAMS_MAX) stream.close(constants.NGHTTP2_REFUSED_STREAM);
      }
      const bytesMax = (): number => (connection?.proven === false ? strangerMessageBytesMax : MESSAGE_BYTES_MAX);
      partials.watch(stream, call, bytesMax, incomingEncoding ?? 'identity');
      return new ServerInterceptingCall(call);
    },
    async listen(server, credentials, address) {
      const injector = server.createConnectionInjector(credentials);
      const net = createServer({ noDelay: true, pauseOnConnect: true }, (socket) =>
        take(socket, (taken) => injector.injectConnection(taken)),
      );
      listener = net;
      net.maxConnections = options.connectionsMax ?? 12_000;
      await new Promise<void>((resolve, reject) => {
        net.once('error', reject);
        net.listen(address.port, address.host, resolve);
      });
      if (!closed) sweep();
      return (net.address() as AddressInfo).port;
    },
    proven(peer) {
      const connection = strangers.get(peer);
      if (connection === undefined) return;
      connection.proven = true;
      strangers.delete(peer);
    },
    get connections() {
      return connections.size;
    },
    close() {
      closed = true;
      cancelSweep();
      listener?.close();
      for (const { socket } of waiting) socket.destroy();
    },
  };
}

function closes(): void {
  // A broken connection is told by its close.
}

/** The messages that are on their way in. */
class Partials {
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #open = new Set<Partial>();
  #heldBytes = 0;

  constructor(clock: Clock, bytesMax: number) {
    this.#clock = clock;
    this.#bytesMax = bytesMax;
  }

  watch(stream: ServerHttp2Stream, call: ServerInterceptingCallInterface, messageBytesMax: () => number, encoding: string): void {
    const partial: Partial = { stream, call, messageBytesMax, head: [], leftBytes: 0, heldBytes: 0 };
    stream.once('finish', () => this.#linger(stream));
    // What grpc-js unpacks it unpacks whole and many at once, so a thousandth of the bytes would be enough to fill the memory.
    if (encoding !== 'identity') {
      queueMicrotask(() =>
        this.#refuse(partial, status.UNIMPLEMENTED, `compressed messages are not taken, received ${encoding.slice(0, 32)}`),
      );
      return;
    }
    this.#open.add(partial);
    // Before grpc-js sees the bytes, and without making the stream flow.
    stream.prependListener('data', (chunk: Buffer) => this.#read(partial, chunk));
    stream.once('close', () => this.#forget(partial));
  }

  #read(partial: Partial, chunk: Buffer): void {
    if (!this.#open.has(partial)) return;
    let at = 0;
    while (at < chunk.length) {
      if (partial.leftBytes === 0) {
        partial.head.push(chunk[at++]!);
        if (partial.head.length < HEAD_BYTES) continue;
        const length = Buffer.from(partial.head).readUInt32BE(1);
        partial.head = [];
        partial.leftBytes = length;
        const bytesMax = partial.messageBytesMax();
        if (length > bytesMax) {
          this.#refuse(partial, status.RESOURCE_EXHAUSTED, `a message may take at most ${bytesMax} bytes here, received ${length}`);
          return;
        }
      }
      const taken = Math.min(partial.leftBytes, chunk.length - at);
      at += taken;
      partial.leftBytes -= taken;
      const change = partial.leftBytes === 0 ? -partial.heldBytes : taken;
      partial.heldBytes += change;
      this.#heldBytes += change;
    }
    while (this.#heldBytes > this.#bytesMax) {
      let largest = partial;
      for (const other of this.#open) if (other.heldBytes > largest.heldBytes) largest = other;
      this.#refuse(largest, status.RESOURCE_EXHAUSTED, 'too many large messages are on their way', true);
    }
  }

  /** Resets a stream that its client leaves open though its status is sent. */
  #linger(stream: ServerHttp2Stream): void {
    if (stream.closed) return;
    const cancel = this.#clock.after(LINGER_MS, () => stream.close(constants.NGHTTP2_NO_ERROR));
    stream.once('close', cancel);
  }

  /** The status goes out, what still comes in is dropped unread, and the stream is reset soon. */
  #refuse(partial: Partial, code: status, details: string, resetNow = false): void {
    const { stream, call } = partial;
    this.#forget(partial);
    stream.removeAllListeners('data');
    stream.resume();
    call.sendStatus({ code, details });
    if (resetNow) stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }

  #forget(partial: Partial): void {
    if (!this.#open.delete(partial)) return;
    this.#heldBytes -= partial.heldBytes;
    partial.heldBytes = 0;
  }
}
