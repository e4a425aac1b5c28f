/** Bytes of a connection that wait for more of them: in one buffer that grows, since a client may send them one by one. */
import { kept } from './reading.ts';

const BYTES_MIN = 256;

export class Gathered {
  #memory: Buffer;
  /** How many there are. */
  bytes: number;

  /** Takes `chunk` over: nobody may write to it any more. */
  constructor(chunk: Buffer) {
    this.#memory = chunk;
    this.bytes = chunk.length;
  }

  /** What is there is before `bytes`; what is behind has no meaning. Stands until the next `add`. */
  get memory(): Buffer {
    return this.#memory;
  }

  /** Copies `buffer[0, bytes)` behind what is there. Without garbage unless the room is used up; then it is doubled. */
  add(buffer: Buffer, bytes: number): void {
    const needed = this.bytes + bytes;
    if (needed > this.#memory.length) {
      const larger = Buffer.allocUnsafe(Math.max(BYTES_MIN, 2 * needed));
      this.#memory.copy(larger, 0, 0, this.bytes);
      this.#memory = larger;
    }
    if (bytes === 1) this.#memory[this.bytes] = buffer[0]!;
    else buffer.copy(this.#memory, this.bytes, 0, bytes);
    this.bytes = needed;
  }

  /** All of it, without a copy. */
  all(): Buffer {
    return this.#memory.subarray(0, this.bytes);
  }
}

/** `buffer[0, bytes)` behind what is there already, or as the first of it. The answer is `known` if there is one. */
export function gather(known: Gathered | undefined, buffer: Buffer, bytes: number): Gathered {
  if (known === undefined) return new Gathered(kept(buffer.subarray(0, bytes)));
  known.add(buffer, bytes);
  return known;
}
