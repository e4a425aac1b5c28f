/** Reading sockets into one shared buffer: what Node's `onread` option does, for sockets that exist already. */
import { Socket } from 'node:net';

/** Gets what was read: `buffer[0, bytes)`. It stands only until the function returns: what is to stay goes through `kept`. */
export type OnRead = (buffer: Buffer, bytes: number) => void;

const SHARED_BYTES = 64 * 1024;

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

interface OpenSocket {
  [key: symbol]: unknown;
  _handle: { useUserBuffer?: (buffer: Buffer) => void } | null;
}

let shared: Buffer | undefined;
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

/** Reads a socket from now on; nothing else may listen to its `data`. `pause`, `resume`, `end` and errors work as ever. */
export function readFrom(socket: Socket, onRead: OnRead): void {
  // Bytes that are in the stream already, and everything where the shared buffer cannot be used, come this way.
  socket.on('data', (chunk: Buffer) => onRead(chunk, chunk.length));
  if (shared === undefined) {
    shared = Buffer.allocUnsafeSlow(SHARED_BYTES);
    keys = findKeys();
  }
  const open = socket as unknown as OpenSocket;
  if (keys === undefined || typeof open._handle?.useUserBuffer !== 'function') return;
  open[keys.buffer] = shared;
  open[keys.generator] = null;
  open[keys.callback] = (bytes: number, buffer: Buffer): boolean => {
    onRead(buffer, bytes);
    return true;
  };
  open._handle.useUserBuffer(shared);
}

/** Gives the socket back to whoever listens to `data` next. It is paused; `resume` starts it. */
export function stopReadFrom(socket: Socket): void {
  socket.pause();
  socket.removeAllListeners('data');
  const open = socket as unknown as OpenSocket;
  if (keys === undefined || open[keys.buffer] === undefined || open[keys.buffer] === null) return;
  open[keys.callback] = (bytes: number, buffer: Buffer): boolean => socket.push(Buffer.from(buffer.subarray(0, bytes)));
}

/** The same bytes in memory of their own if they are in the shared buffer, else as they are. */
export function kept(chunk: Buffer): Buffer {
  return shared !== undefined && chunk.buffer === shared.buffer ? Buffer.from(chunk) : chunk;
}

/**
 * At the end of a socket's stream: was it a reset and no end? Some versions of libuv report a hang-up after a short read as an orderly end.
 * A connection that was reset has no peer any more, one that was ended has.
 */
export function wasReset(socket: Socket): boolean {
  const handle = (socket as unknown as { _handle: { getpeername?: (out: object) => number } | null })._handle;
  return handle !== null && typeof handle?.getpeername === 'function' && handle.getpeername({}) !== 0;
}

/** Does this Node let sockets read into the shared buffer? For tests and the start-up log. */
export function readsShared(): boolean {
  keys ??= findKeys();
  return keys !== undefined;
}
