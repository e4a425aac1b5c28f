/** Writing to sockets: the small messages of one turn of the event loop leave together at its end, each in one call and past the stream layer. */
import { Socket } from 'node:net';
import { Channel } from '../mux/channel.ts';

/** What Node answers for a write that the kernel did not take at once. */
interface WriteRequest {
  oncomplete: (status: number) => void;
  handle: unknown;
  buffer: unknown;
  /** Set where the write was over before `oncomplete` could be. */
  writeStatus?: number | null;
}

interface Handle {
  /** Writes what the kernel takes at once; 0 = all of it, below 0 an error, else the request that writes the rest. */
  writeLatin1String(request: null, text: string): number | WriteRequest;
}

/**
 * Does this Node's handle take a text without a request object, and answer one only where something is left to write? Asked of a socket with a
 * handle of our own, since a handle of another kind would end the process. Where it does not, the socket's own `write` serves.
 */
function findDirect(): boolean {
  let direct = false;
  const fake = {
    writeLatin1String: (request: unknown): number => {
      direct = request === null;
      return 0;
    },
    writeUtf8String: (): number => 0,
    writeBuffer: (): number => 0,
    readStart: (): number => 0,
    readStop: (): number => 0,
    close: (done?: () => void): void => done?.(),
    getAsyncId: (): number => 0,
    ref: (): void => undefined,
    unref: (): void => undefined,
    bytesRead: 0,
    bytesWritten: 0,
  };
  try {
    const socket = new Socket({ handle: fake, readable: false } as never);
    socket.on('error', () => undefined);
    socket.write('?', 'latin1');
    socket.destroy();
  } catch {
    return false; // A socket that is made in another way than we know: its own `write` serves.
  }
  return direct;
}

let direct: boolean | undefined;

/** Does this Node let texts be written past the stream layer? For tests and the start-up log. */
export function writesDirectly(): boolean {
  return (direct ??= findDirect());
}

/** Those with something to write at the end of this turn. */
const waiting: Output[] = [];

/**
 * Each write wakes the process at the other end if it sleeps, which costs more than the write. Made one after the other, most of them find it
 * awake. Reads that are handled together also find code and data in the processor's caches.
 */
function writeAll(): void {
  for (let i = 0; i < waiting.length; i++) waiting[i]!.flush();
  waiting.length = 0;
}

/** The writing side of one socket. */
export class Output {
  readonly #socket: Socket;
  /** A TLS socket takes one write at a time, and only its stream knows when the next may come: a second one would end the process. */
  readonly #direct: boolean;
  /** Set where the socket is a channel: its carrier gathers what all of its channels write. */
  readonly #channel: Channel | undefined;
  #text = '';
  #queued = false;
  #writing = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    direct ??= findDirect();
    this.#direct = direct && !('encrypted' in socket);
    this.#channel = (socket as unknown) instanceof Channel ? (socket as unknown as Channel) : undefined;
  }

  /** Writes the text, one byte a character, at the end of this turn of the event loop. */
  later(text: string): void {
    if (this.#channel !== undefined) {
      this.#channel.later(text);
      return;
    }
    this.#text = this.#text === '' ? text : this.#text + text;
    if (this.#queued) return;
    this.#queued = true;
    if (waiting.push(this) === 1) setImmediate(writeAll);
  }

  /** The socket itself, for what is no small text. What was said before is written first. */
  now(): Socket {
    if (this.#text !== '') this.flush();
    return this.#socket;
  }

  /** Bytes that the kernel did not take yet; of a text that was written past the stream only that there are some. */
  get waitingBytes(): number {
    return this.#socket.writableLength + (this.#writing ? 1 : 0);
  }

  flush(): void {
    const text = this.#text;
    this.#queued = false;
    if (text === '') return;
    this.#text = '';
    const socket = this.#socket;
    if (socket.destroyed) return;
    const handle = (socket as unknown as { _handle?: Handle | null })._handle;
    // A socket may have no handle of this kind. Behind bytes that wait in the stream, and before those of `end`, only the stream knows the order.
    if (
      !this.#direct ||
      handle?.writeLatin1String === undefined ||
      this.#writing ||
      socket.writableLength > 0 ||
      socket.connecting ||
      !socket.writable
    ) {
      socket.write(text, 'latin1');
      return;
    }
    const answer = handle.writeLatin1String(null, text);
    if (answer === 0) return;
    if (typeof answer === 'number') {
      socket.destroy();
      return;
    }
    this.#await(answer, handle);
  }

  /** The rest is with the operating system's loop; what comes meanwhile goes through the stream, which queues behind it. */
  #await(request: WriteRequest, handle: Handle): void {
    const done = (status: number): void => {
      this.#writing = false;
      if (status < 0) this.#socket.destroy();
    };
    if (typeof request.writeStatus === 'number') {
      done(request.writeStatus);
      return;
    }
    this.#writing = true;
    request.handle = handle;
    request.oncomplete = done;
  }
}
