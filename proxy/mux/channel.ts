/** One of the connections that a carrier carries: a stream with the ways of a socket, and short cuts for the HTTP codec that go past the stream. */
import { Duplex } from 'node:stream';
import { writeLatin1 } from '../http1/bytes.ts';
import type { Reader } from '../http1/reading.ts';
import { DATA, END, HEADER_BYTES, PAYLOAD_BYTES_MAX, RESET, WINDOW_BYTES, channelText, creditFrame, typeText } from './protocol.ts';

type Done = (error?: Error | null) => void;

/** The connection below, as its channels see it. */
export interface ChannelCarrier {
  readonly remoteAddress: string | undefined;
  readonly remotePort: number | undefined;
  readonly localAddress: string | undefined;
  readonly localPort: number | undefined;
  /** Writes frames that are text at the end of this turn. */
  later(frames: string): void;
  /** Writes frames now, behind those said before; calls `done` when the connection has taken them. */
  write(frames: Buffer, done: Done): void;
  /** The channel's number in a header; given when it sends its first byte, so that numbers come in order. */
  number(channel: Channel): string;
  closed(channel: Channel): void;
  /** Memory for frames, and back. */
  takeBuffer(): Buffer;
  giveBuffer(buffer: Buffer): void;
}

/** Hands what had to wait to the reader: memory that is used again afterwards. */
type HandBlock = (reader: Reader, buffer: Buffer, bytes: number) => void;

/** Credit goes back when this much of the window is used up. */
const CREDIT_BYTES_MIN = WINDOW_BYTES / 2;
/** What waits to be read is joined into blocks of this size, so that many small frames cost no more than few large ones. */
const BLOCK_BYTES = 16 * 1024;
/** Writes up to this size get memory of their own; longer ones borrow. */
const SMALL_BYTES_MAX = 4 * 1024;

/** Blocks that nobody uses, of all channels. */
const blocks: Buffer[] = [];
const BLOCKS_MAX = 64;

function takeBlock(): Buffer {
  return blocks.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
}

function giveBlock(block: Buffer): void {
  if (blocks.length < BLOCKS_MAX) blocks.push(block);
}

/** A write under way: its parts, and how far they are sent. */
class Outgoing {
  readonly #parts: readonly Buffer[];
  #part = 0;
  #from = 0;
  /** What is left. */
  bytes: number;
  readonly done: Done;

  constructor(parts: readonly Buffer[], done: Done) {
    this.#parts = parts;
    this.done = done;
    this.bytes = parts.reduce((sum, part) => sum + part.length, 0);
  }

  /** Moves the next `bytes` of it. */
  copy(to: Buffer, at: number, bytes: number): void {
    this.bytes -= bytes;
    while (bytes > 0) {
      const part = this.#parts[this.#part]!;
      const copied = part.copy(to, at, this.#from, Math.min(part.length, this.#from + bytes));
      at += copied;
      bytes -= copied;
      this.#from += copied;
      if (this.#from < part.length) continue;
      this.#part++;
      this.#from = 0;
    }
  }
}

/**
 * Bytes received and not given credit for are at most `WINDOW_BYTES`, and of what is sent at most one buffer waits in the carrier. Destroying
 * it resets the channel at the other side unless both sides have ended.
 */
export class Channel extends Duplex {
  readonly #carrier: ChannelCarrier;
  /** 0 until the first byte is sent. */
  id: number;
  /** The number as headers have it; empty until the first byte is sent. */
  #header: string;
  /** What may still be sent. */
  #room = WINDOW_BYTES;
  /** The write under way that waits for credit. */
  #waiting: Outgoing | undefined;
  /** Received, not asked for yet; the last block is filled up to `#blockEnd`. */
  #blocks: Buffer[] = [];
  #blockEnd = 0;
  #waitingBytes = 0;
  /** Taken, and no credit given for it yet. */
  #owed = 0;
  #wanted = false;
  #ended = false;
  #endSent = false;
  #gone = false;
  #reader: Reader | undefined;
  #handBlock: HandBlock | undefined;
  readonly connecting = false;
  bytesRead = 0;
  bytesWritten = 0;

  /** `id` is the number of a channel that the peer opened, 0 for one of ours. */
  constructor(carrier: ChannelCarrier, id: number) {
    // A high-water mark of 0: bytes are asked for when somebody reads, and wait in the blocks otherwise.
    super({ readableHighWaterMark: 0, allowHalfOpen: false });
    this.#carrier = carrier;
    this.id = id;
    this.#header = id === 0 ? '' : channelText(id);
    // What an error means is in the `close` that follows it.
    this.on('error', () => undefined);
  }

  get remoteAddress(): string | undefined {
    return this.#carrier.remoteAddress;
  }

  get remotePort(): number | undefined {
    return this.#carrier.remotePort;
  }

  get localAddress(): string | undefined {
    return this.#carrier.localAddress;
  }

  get localPort(): number | undefined {
    return this.#carrier.localPort;
  }

  /** Small messages leave at the end of the turn anyway. */
  setNoDelay(): this {
    return this;
  }

  resetAndDestroy(): this {
    return this.destroy();
  }

  // ---- writing --------------------------------------------------------------------------------------------------------

  /** Writes a text, one byte a character, at the end of this turn of the event loop. */
  later(text: string): void {
    const bytes = text.length;
    if (bytes > this.#room || bytes > PAYLOAD_BYTES_MAX || this.writableLength > 0 || !this.writable) {
      this.write(text, 'latin1');
      return;
    }
    this.#room -= bytes;
    this.bytesWritten += bytes;
    if (this.#header === '') this.#header = this.#carrier.number(this);
    this.#carrier.later(typeText(DATA, bytes) + this.#header + text);
  }

  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    this.#send(new Outgoing([chunk], done));
  }

  override _writev(items: { chunk: Buffer }[], done: Done): void {
    this.#send(
      new Outgoing(
        items.map((item) => item.chunk),
        done,
      ),
    );
  }

  /** As many frames as the peer has room for and one buffer holds; the rest after that. What is sent is copied: the caller's memory may be lent. */
  #send(outgoing: Outgoing): void {
    const allowed = Math.min(outgoing.bytes, this.#room);
    if (outgoing.bytes === 0 || this.#gone) {
      outgoing.done();
      return;
    }
    if (allowed === 0) {
      this.#waiting = outgoing;
      return;
    }
    if (this.#header === '') this.#header = this.#carrier.number(this);
    const borrowed = allowed > SMALL_BYTES_MAX ? this.#carrier.takeBuffer() : undefined;
    const buffer = borrowed ?? Buffer.allocUnsafe(allowed + HEADER_BYTES);
    let sent = 0;
    let at = 0;
    while (sent < allowed && at + HEADER_BYTES < buffer.length) {
      const bytes = Math.min(allowed - sent, PAYLOAD_BYTES_MAX, buffer.length - at - HEADER_BYTES);
      writeLatin1(buffer, typeText(DATA, bytes) + this.#header, at);
      outgoing.copy(buffer, at + HEADER_BYTES, bytes);
      sent += bytes;
      at += HEADER_BYTES + bytes;
    }
    this.#room -= sent;
    this.bytesWritten += sent;
    this.#carrier.write(at === buffer.length ? buffer : buffer.subarray(0, at), (error) => {
      if (borrowed !== undefined) this.#carrier.giveBuffer(borrowed);
      if (error) outgoing.done(error);
      else this.#send(outgoing);
    });
  }

  override _final(done: Done): void {
    this.#endSent = true;
    // The peer has never heard of a channel that sent nothing, and will say nothing on it.
    if (this.#header === '') this.peerEnded();
    else this.#carrier.later(typeText(END, 0) + this.#header);
    done();
  }

  // ---- reading --------------------------------------------------------------------------------------------------------

  /** From now on bytes go past the stream. */
  readTo(reader: Reader, handBlock: HandBlock): void {
    this.#reader = reader;
    this.#handBlock = handBlock;
  }

  /** Bytes go through the stream again. */
  readAsStream(): void {
    this.#reader = this.#handBlock = undefined;
    if (this.#wanted && this.#blocks.length > 0) {
      this.#wanted = false;
      this._read();
    }
  }

  override resume(): this {
    super.resume();
    // Not from within: who resumes is often in the middle of handling the bytes before.
    if (this.#blocks.length > 0 && this.#reader !== undefined) process.nextTick(() => this.#handBlocks());
    return this;
  }

  #handBlocks(): void {
    while (this.#reader !== undefined && this.readableFlowing === true && this.#blocks.length > 0 && !this.#gone) {
      const { block, bytes } = this.#shiftBlock();
      this.#handBlock!(this.#reader, block, bytes);
      giveBlock(block);
    }
    if (this.#ended && this.#blocks.length === 0 && !this.#gone) this.push(null);
  }

  #shiftBlock(): { readonly block: Buffer; readonly bytes: number } {
    const block = this.#blocks.shift()!;
    const bytes = this.#blocks.length === 0 ? this.#blockEnd : block.length;
    this.#waitingBytes -= bytes;
    this.#took(bytes);
    return { block, bytes };
  }

  override _read(): void {
    if (this.#blocks.length === 0 || this.#reader !== undefined) {
      this.#wanted = true;
      return;
    }
    const { block, bytes } = this.#shiftBlock();
    this.push(block.subarray(0, bytes));
    if (this.#ended && this.#blocks.length === 0) this.push(null);
  }

  #took(bytes: number): void {
    this.#owed += bytes;
    if (this.#owed < CREDIT_BYTES_MIN || this.#gone || this.#ended) return;
    this.#carrier.later(creditFrame(this.#header, this.#owed));
    this.#owed = 0;
  }

  /** Keeps a copy for whoever reads later. */
  #keep(bytes: Buffer): void {
    this.#waitingBytes += bytes.length;
    let from = 0;
    while (from < bytes.length) {
      let block = this.#blocks.at(-1);
      if (block === undefined || this.#blockEnd === block.length) {
        block = takeBlock();
        this.#blocks.push(block);
        this.#blockEnd = 0;
      }
      const copied = bytes.copy(block, this.#blockEnd, from);
      this.#blockEnd += copied;
      from += copied;
    }
  }

  // ---- the carrier's side ---------------------------------------------------------------------------------------------

  /** Takes bytes of the peer's, which stand only until this returns. False when they are more than it may send. */
  received(bytes: Buffer): boolean {
    if (this.#gone) return true;
    if (this.#ended || this.#waitingBytes + this.#owed + bytes.length > WINDOW_BYTES) return false;
    this.bytesRead += bytes.length;
    if (this.#blocks.length > 0) this.#keep(bytes);
    else if (this.#reader !== undefined) {
      if (this.readableFlowing === true) {
        this.#took(bytes.length);
        this.#reader.read(bytes, bytes.length);
      } else this.#keep(bytes);
    } else if (this.#wanted) {
      this.#wanted = false;
      this.#took(bytes.length);
      this.push(Buffer.from(bytes));
    } else this.#keep(bytes);
    return true;
  }

  /** The peer writes no more. False when it has said so before. */
  peerEnded(): boolean {
    if (this.#gone) return true;
    if (this.#ended) return false;
    this.#ended = true;
    if (this.#blocks.length === 0) this.push(null);
    return true;
  }

  /** The peer, or the carrier, is gone: nothing more is said about this channel. */
  cut(): void {
    this.#leave();
    this.destroy();
  }

  /** The peer has taken so much more. False when that is more than was sent. */
  credited(bytes: number): boolean {
    this.#room += bytes;
    if (this.#room > WINDOW_BYTES) return false;
    const waiting = this.#waiting;
    if (waiting === undefined) return true;
    this.#waiting = undefined;
    this.#send(waiting);
    return true;
  }

  override _destroy(error: Error | null, done: Done): void {
    if (!this.#gone) {
      if (this.#header !== '' && !(this.#endSent && this.#ended)) this.#carrier.later(typeText(RESET, 0) + this.#header);
      this.#leave();
    }
    done(error);
  }

  #leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#blocks = [];
    this.#waiting?.done(new Error('The channel is closed.'));
    this.#waiting = undefined;
    this.#carrier.closed(this);
  }
}
