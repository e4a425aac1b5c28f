/** Finds the messages in a gRPC stream; long ones stay in the pieces that they came in until they are read, since after an outage a thousand clients send them at once. */

/** Compressed flag and length before each message of gRPC. */
export const HEAD_BYTES = 5;
/** Shorter messages are put together at once: they are what nearly all are, and die young. */
const LONG_BYTES_MIN = 16 * 1024;
/** Longer messages than this are put together in memory of their own. */
export const SCRATCH_BYTES = 256 * 1024;

/**
 * Where long messages are put together for as long as it takes to decode them. Fresh memory for each was what an outage cost most: the kernel
 * clears its pages, and the collector reckons with it.
 */
export class Scratch {
  #memory: Buffer | undefined;

  /** The pieces as one; the next call overwrites it. */
  join(pieces: readonly Uint8Array[], bytes: number): Buffer {
    const memory = bytes > SCRATCH_BYTES ? Buffer.allocUnsafeSlow(bytes) : (this.#memory ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES));
    let at = 0;
    for (const piece of pieces) {
      memory.set(piece, at);
      at += piece.length;
    }
    return memory.subarray(0, at);
  }
}

/** The content of a message in pieces. grpc-js takes it for a Buffer: all that it does with one is to look at the first byte and to cut off the head. */
export class LongMessage {
  readonly #compressed: number;
  readonly #pieces: readonly Uint8Array[];
  readonly bytes: number;

  constructor(compressed: number, pieces: readonly Uint8Array[], bytes: number) {
    this.#compressed = compressed;
    this.#pieces = pieces;
    this.bytes = bytes;
  }

  readUInt8(): number {
    return this.#compressed;
  }

  subarray(): this {
    return this;
  }

  /** Calls `read` with the whole content, which is there for this call only, and answers what it answers. */
  readIn<T>(scratch: Scratch, read: (content: Buffer) => T): T {
    return read(scratch.join(this.#pieces, this.bytes));
  }
}

/** For one stream, in the place of the decoder of grpc-js, which has the same `write`. */
export class MessageDecoder {
  readonly #bytesMax: number;
  readonly #head = Buffer.alloc(HEAD_BYTES);
  /** How much of the head is there. */
  #headBytes = 0;
  /** Of the content: what has come, how long it is, and how much is still to come. */
  #pieces: Buffer[] = [];
  #contentBytes = 0;
  #leftBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
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
      this.#pieces.push(piece);
      if (this.#leftBytes === 0) messages.push(this.#message());
    }
    return messages;
  }

  #message(): Buffer | LongMessage {
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#headBytes = 0;
    if (this.#contentBytes >= LONG_BYTES_MIN) return new LongMessage(this.#head[0]!, pieces, this.#contentBytes);
    return Buffer.concat([this.#head, ...pieces]);
  }
}
