/** Reading sockets into one shared buffer: what Node's `onread` option does, for sockets that exist already. */
import { Socket } from 'node:net';
import { Channel } from '../mux/channel.ts';

/** Gets what was read: `buffer[0, bytes)`. It stands only until the call returns: what is to stay goes through `kept`. */
export interface Reader {
  read(buffer: Buffer, bytes: number): void;
}

/** Whom a socket belongs to. */
export interface SocketOwner extends Reader {
  /** The socket has room again. */
  onDrain(): void;
  /** The peer has ended its side. */
  onEnd(): void;
  /** `onClose` follows. */
  onError(error: Error): void;
  onClose(): void;
}

const SHARED_BYTES = 64 * 1024;
/** Pieces from this size on are kept in spares. */
const SPARE_BYTES_MIN = 8 * 1024;

/**
 * Node allocates 64 KiB for every read of a socket, cuts it down and puts it through a stream: a fifth of the proxy's CPU. `net.connect`
 * can be told to read into a given buffer instead, accepted and TLS sockets cannot. What the option sets are three properties of the
 * socket, taken here from a socket that was made with it. Undefined where this Node does it in another way; `data` events serve then.
 */
interface Keys {
  readonly buffer: symbol;
  readonly callback: symbol;
  readonly generator: symbol;
}

/** On a socket: who reads it, and whom it belongs to. Found there, so that all sockets share their listeners. */
const READER = Symbol('reader');

interface OpenSocket {
  [key: symbol]: unknown;
  [READER]?: Reader;
  _handle: { useUserBuffer?: (buffer: Buffer) => void } | null;
}

let shared: Buffer | undefined;
let sharedMemory: ArrayBufferLike | undefined;
let keys: Keys | undefined;

function findKeys(): Keys | undefined {
  const noBytes = Buffer.alloc(1);
  const probe = new Socket({ onread: { buffer: noBytes, callback: () => true } });
  const find = (test: (value: unknown) => boolean, name: string): symbol | undefined =>
    Object.getOwnPropertySymbols(probe).find((key) => key.description === name && test((probe as unknown as OpenSocket)[key]));
  const buffer = find((value) => value === noBytes, 'kBuffer');
  const callback = find((value) => typeof value === 'function', 'kBufferCb');
  const generator = find((value) => value === null, 'kBufferGen');
  probe.destroy();
  return buffer !== undefined && callback !== undefined && generator !== undefined ? { buffer, callback, generator } : undefined;
}

/** What `chunk.buffer` is while a chunk of it is being handled: the memory that the next read will overwrite. */
let current: ArrayBufferLike | undefined;
/** The same where it belongs to a channel. */
let waited: ArrayBufferLike | undefined;

function isChannel(socket: unknown): socket is Channel {
  return socket instanceof Channel;
}

/** Node calls it with the socket as `this`. */
function handle(this: OpenSocket, bytes: number, buffer: Buffer): boolean {
  // Asking a buffer for its memory is a call into the engine.
  current = buffer === shared ? sharedMemory : buffer.buffer;
  this[READER]!.read(buffer, bytes);
  current = undefined;
  return true;
}

/** The same with bytes of a channel that had to wait: their memory is used again at once, so that it cannot be lent. May be nested in the other. */
function handleWaited(reader: Reader, buffer: Buffer, bytes: number): void {
  const before = current;
  current = waited = buffer.buffer;
  reader.read(buffer, bytes);
  current = before;
  waited = undefined;
}

function onData(this: Socket, chunk: Buffer): void {
  (this as unknown as OpenSocket)[READER]!.read(chunk, chunk.length);
}

const ownerOf = (socket: Socket): SocketOwner => (socket as unknown as OpenSocket)[READER] as SocketOwner;

function onDrain(this: Socket): void {
  ownerOf(this).onDrain();
}

function onEnd(this: Socket): void {
  ownerOf(this).onEnd();
}

function onError(this: Socket, error: Error): void {
  ownerOf(this).onError(error);
}

function onClose(this: Socket): void {
  ownerOf(this).onClose();
}

/** Hands a socket's events, and its bytes as `readFrom` does, to its owner from now on. */
export function own(socket: Socket, owner: SocketOwner): void {
  readFrom(socket, owner);
  socket.on('drain', onDrain);
  socket.on('end', onEnd);
  socket.on('error', onError);
  socket.on('close', onClose);
}

/** Reads a socket from now on; nothing else may listen to its `data`. `pause`, `resume`, `end` and errors work as ever. */
export function readFrom(socket: Socket, reader: Reader): void {
  const open = socket as unknown as OpenSocket;
  open[READER] = reader;
  // Bytes that are in the stream already, and everything where the shared buffer cannot be used, come this way.
  socket.on('data', onData);
  if (isChannel(socket)) {
    socket.readTo(reader, handleWaited);
    return;
  }
  if (shared === undefined) {
    shared = Buffer.allocUnsafeSlow(SHARED_BYTES);
    sharedMemory = shared.buffer;
    keys = findKeys();
  }
  if (keys === undefined || typeof open._handle?.useUserBuffer !== 'function') return;
  open[keys.buffer] = shared;
  open[keys.generator] = null;
  open[keys.callback] = handle;
  open._handle.useUserBuffer(shared);
}

/** Buffers that nobody uses, for the next socket that streams or the next piece that must be kept: memory of this size is dear to get and to lose. */
const spares: Buffer[] = [];
const SPARES_MAX = 32;
/** All buffers that may become spares, by their memory. */
const SPARE_OF = new WeakMap<ArrayBufferLike, Buffer>();

/** One of 64 KiB. */
export function takeSpare(): Buffer {
  const known = spares.pop();
  if (known !== undefined) return known;
  const made = Buffer.allocUnsafeSlow(SHARED_BYTES);
  SPARE_OF.set(made.buffer, made);
  return made;
}

/** The spare that `chunk` is a part of, if it is one of `kept`'s or of a socket that streamed. */
export function spareOf(chunk: Buffer): Buffer | undefined {
  return chunk.length < SPARE_BYTES_MIN ? undefined : SPARE_OF.get(chunk.buffer);
}

/** Nobody uses it any more. */
export function giveSpare(spare: Buffer): void {
  if (spares.length < SPARES_MAX) spares.push(spare);
}

/**
 * From the next read on the socket reads into a buffer of its own, so that what was read can be lent to a slow writer while the socket
 * rests. Call while a read is handled. The answer goes back to the shared buffer, is called likewise, and answers the socket's own, which is
 * to be given to `giveSpare` when nobody writes from it any more.
 */
export function readIntoOwn(socket: Socket): (() => Buffer | undefined) | undefined {
  const open = socket as unknown as OpenSocket;
  // A TLS socket hands out what it has decrypted even while it is paused, and so would write over what was lent.
  if ('encrypted' in socket) return undefined;
  if (keys === undefined || current === undefined || open[keys.buffer] !== shared) return undefined;
  const own = takeSpare();
  let next: Buffer | undefined = own;
  const generator = keys.generator;
  // Asked once after each read; undefined leaves the buffer as it is.
  open[generator] = (): Buffer | undefined => {
    const wanted = next;
    next = undefined;
    return wanted;
  };
  return () => {
    if (current === undefined) return undefined;
    next = shared;
    return own;
  };
}

/** Gives the socket back to whoever listens to `data` next. It is paused; `resume` starts it. */
export function stopReadFrom(socket: Socket): void {
  socket.pause();
  socket.removeAllListeners('data');
  if (isChannel(socket)) {
    socket.readAsStream();
    return;
  }
  const open = socket as unknown as OpenSocket;
  if (keys === undefined || open[keys.buffer] === undefined || open[keys.buffer] === null) return;
  open[keys.callback] = (bytes: number, buffer: Buffer): boolean => socket.push(Buffer.from(buffer.subarray(0, bytes)));
}

/** The same bytes in memory of their own if the next read would overwrite them, else as they are. */
export function kept(chunk: Buffer): Buffer {
  if (current === undefined || chunk.buffer !== current) return chunk;
  if (chunk.length < SPARE_BYTES_MIN || chunk.length > SHARED_BYTES) return Buffer.from(chunk);
  const spare = takeSpare();
  chunk.copy(spare);
  return spare.subarray(0, chunk.length);
}

/** Is the chunk in the socket's own buffer, so that it stands as long as the socket rests? */
export function canLend(chunk: Buffer): boolean {
  return current !== undefined && chunk.buffer === current && current !== sharedMemory && current !== waited;
}

/**
 * At the end of a socket's stream: was it cut off rather than ended? Some versions of libuv report a hang-up after a short read as an
 * orderly end; a connection that was reset has no peer any more, one that was ended has. Over TLS only close_notify is an end (RFC 9112
 * section 9.8), and Node reports a bare end of the connection below in the same way. After close_notify that connection is still being
 * read, so that a second start of reading is an error; after its own end it is not, and the start succeeds. Ask once, and destroy a
 * socket that was cut.
 */
export function wasReset(socket: Socket): boolean {
  const handle = (socket as unknown as { _handle?: SocketHandle | null })._handle;
  // What is no socket of the system says itself how it ended.
  if (handle === null || handle === undefined) return false;
  if (typeof handle._parent?.readStart === 'function') return handle._parent.readStart() === 0;
  return typeof handle.getpeername === 'function' && handle.getpeername({}) !== 0;
}

/** What sockets have in Node; a TLS socket's has the one below it. */
interface SocketHandle {
  getpeername?: (out: object) => number;
  readonly _parent?: { readStart?: () => number };
}

/** Ends a connection so that its peer sees that something is missing: a reset where the platform has one (plain TCP), else a plain close. */
export function cutOff(socket: Socket): void {
  const isPlainTcp = typeof socket.remotePort === 'number' && !('encrypted' in socket);
  if (isPlainTcp) socket.resetAndDestroy();
  else socket.destroy();
}

/** Does this Node let sockets read into the shared buffer? For tests and the start-up log. */
export function readsShared(): boolean {
  keys ??= findKeys();
  return keys !== undefined;
}
