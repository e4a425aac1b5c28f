/** Finds the messages in a gRPC stream; long ones are gathered in memory that is used again, since after an outage a thousand clients send them at once. */

/** Compressed flag and length before each message of gRPC. */
export const HEAD_BYTES = 5;
/** What long messages wait in. */
export const SLAB_BYTES = 16 * 1024;
/** Shorter messages than a slab are put together at once: they are what nearly all are, and die young. */
const LONG_BYTES_MIN = SLAB_BYTES;
/** Longer messages than this are put together in memory of their own. */
export const SCRATCH_BYTES = 256 * 1024;
/** Slabs that are not in use and kept: 4 MiB, as much as forty clients of a thousand services send in their first requests. */
const SLABS_KEPT_MAX = 256;

/**
 * The memory of long messages. What came in of one waits in slabs, which go from message to message, and is put together in one place for as
 * long as it takes to decode it. Fresh memory for each was what an outage cost most: the kernel clears its pages, and V8 takes it for a reason
 * to collect the whole heap.
 */
export class Scratch {
  #memory: Buffer | undefined;
  readonly #free: Buffer[] = [];

  /** A slab of `SLAB_BYTES`, with whatever was in it last. */
  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
  }

  /** Slabs that nobody will read or write any more. One that is never given back is the collector's. */
  give(slabs: readonly Buffer[]): void {
    for (const slab of slabs) if (this.#free.length < SLABS_KEPT_MAX) this.#free.push(slab);
  }

  /** The first `bytes` of the slabs as one; the next call overwrites it. */
  join(slabs: readonly Buffer[], bytes: number): Buffer {
    const memory = bytes > SCRATCH_BYTES ? Buffer.allocUnsafeSlow(bytes) : (this.#memory ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES));
    let at = 0;
    for (const slab of slabs) at += slab.copy(memory, at, 0, Math.min(slab.length, bytes - at));
    return memory.subarray(0, bytes);
  }
}

/** The content of a message in slabs. grpc-js takes it for a Buffer: all that it does with one is to look at the first byte and to cut off the head. */
export class LongMessage {
  readonly #scratch: Scratch;
  readonly #compressed: number;
  #slabs: readonly Buffer[];
  readonly bytes: number;

  constructor(scratch: Scratch, compressed: number, slabs: readonly Buffer[], bytes: number) {
    this.#scratch = scratch;
    this.#compressed = compressed;
    this.#slabs = slabs;
    this.bytes = bytes;
  }

  readUInt8(): number {
    return this.#compressed;
  }

  subarray(): this {
    return this;
  }

  /** Calls `read` with the whole content, which is there for this call only, and answers what it answers. Not after `release`. */
  readIn<T>(read: (content: Buffer) => T): T {
    if (this.#slabs.length === 0) throw new Error('a message is read after its memory was given back');
    return read(this.#scratch.join(this.#slabs, this.bytes));
  }

  /** Gives its memory back: it has been read. A message that nobody reads need not be released. */
  release(): void {
    this.#scratch.give(this.#slabs);
    this.#slabs = [];
  }
}

/** For one stream, in the place of the decoder of grpc-js, which has the same `write`. */
export class MessageDecoder {
  readonly #bytesMax: number;
  readonly #scratch: Scratch;
  readonly #head = Buffer.alloc(HEAD_BYTES);
  /** How much of the head is there. */
  #headBytes = 0;
  /** Of the content: how long it is, and how much is still to come. */
  #contentBytes = 0;
  #leftBytes = 0;
  /** What has come: as it came while a slab would not be full of it, so that a client which begins a long message does not hold more than it sent. */
  #pieces: Buffer[] = [];
  #slabs: Buffer[] = [];
  /** Free in the last slab. */
  #roomBytes = 0;

  constructor(bytesMax: number, scratch: Scratch) {
    this.#bytesMax = bytesMax;
    this.#scratch = scratch;
  }

  /** Takes what came and answers the messages that end in it, short ones with their heads. Throws an Error for one of more than `bytesMax`. */
  write(data: Buffer): (Buffer | LongMessage)[] {
    const messages: (Buffer | LongMessage)[] = [];
    let at = 0;
    while (at < data.length) {
      if (this.#headBytes < HEAD_BYTES) {
        const taken = data.copy(this.#head, this.#headBytes, at);
        this.#headBytes += taken;
        at += taken;
        if (this.#headBytes < HEAD_BYTES) break;
        this.#contentBytes = this.#leftBytes = this.#head.readUInt32BE(1);
        if (this.#leftBytes > this.#bytesMax)
          throw new Error(`a message may take at most ${this.#bytesMax} bytes, received ${this.#leftBytes}`);
      }
      const piece = data.subarray(at, at + this.#leftBytes);
      at += piece.length;
      this.#leftBytes -= piece.length;
      this.#keep(piece);
      if (this.#leftBytes === 0) messages.push(this.#message());
    }
    return messages;
  }

  #keep(piece: Buffer): void {
    // Also what is kept of a short message.
    if (this.#contentBytes - this.#leftBytes < SLAB_BYTES) {
      this.#pieces.push(piece);
      return;
    }
    for (const earlier of this.#pieces) this.#gather(earlier);
    this.#pieces = [];
    this.#gather(piece);
  }

  #gather(piece: Buffer): void {
    let at = 0;
    while (at < piece.length) {
      if (this.#roomBytes === 0) {
        this.#slabs.push(this.#scratch.take());
        this.#roomBytes = SLAB_BYTES;
      }
      const copied = piece.copy(this.#slabs.at(-1)!, SLAB_BYTES - this.#roomBytes, at);
      this.#roomBytes -= copied;
      at += copied;
    }
  }

  #message(): Buffer | LongMessage {
    this.#headBytes = 0;
    if (this.#contentBytes < LONG_BYTES_MIN) {
      const pieces = this.#pieces;
      this.#pieces = [];
      return Buffer.concat([this.#head, ...pieces]);
    }
    const slabs = this.#slabs;
    this.#slabs = [];
    this.#roomBytes = 0;
    return new LongMessage(this.#scratch, this.#head[0]!, slabs, this.#contentBytes);
  }
}
