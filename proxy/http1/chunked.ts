/** The chunked transfer coding: a strict decoder that works across reads, and the text around written chunks. */
import { Headers } from '../headers.ts';
import { latin1 } from './bytes.ts';
import { HEX, TOKEN } from './chars.ts';
import { bad, checkLineEnds, emptyFieldValues, readFields } from './fields.ts';

export interface ChunkedLimits {
  /** Chunk extensions are dropped, and may be this long in a whole body. */
  readonly extensionBytesMax: number;
  readonly trailerBytesMax: number;
  readonly trailerFieldsMax: number;
}

const SIZE = 0;
const SIZE_LF = 1;
const EXT_NAME = 2;
const EXT_VALUE = 3;
const EXT_QUOTED = 4;
const EXT_ESCAPED = 5;
const EXT_AFTER = 6;
const DATA = 7;
const DATA_CR = 8;
const DATA_LF = 9;
const TRAILER = 10;
const DONE = 11;

/** Runs of data this short are moved together, so that a thousand one-byte chunks become one write. */
const MOVED_BYTES_MAX = 2048;
const SIZE_DIGITS_MAX = 16;
const LINE_END = '\r\n';

/** Decodes one body; `reset` makes it ready for the next. */
export class ChunkedDecoder {
  #state = SIZE;
  #size = 0;
  #digits = 0;
  #left = 0;
  #tokenBytes = 0;
  #extensionBytes = 0;
  #trailerText = '';
  /** The last characters before what comes next; at first the end of the line before the trailers. */
  #trailerTail = LINE_END;
  readonly #limits: ChunkedLimits;
  /** After the end: what trailers there were, without those that may not be trailers. */
  trailers: Headers | undefined;
  /** Total of data bytes so far. */
  bytes = 0;

  constructor(limits: ChunkedLimits) {
    this.#limits = limits;
  }

  get done(): boolean {
    return this.#state === DONE;
  }

  reset(): void {
    this.#state = SIZE;
    this.#size = 0;
    this.#digits = 0;
    this.#left = 0;
    this.#tokenBytes = 0;
    this.#extensionBytes = 0;
    this.#trailerText = '';
    this.#trailerTail = LINE_END;
    this.trailers = undefined;
    this.bytes = 0;
  }

  /**
   * Takes bytes from `input[at]` on and calls `data` with runs of content. Answers the index of the first byte after the body,
   * or `input.length`. Small chunks are moved together inside `input`, which the caller therefore must own. Throws `ProxyError`.
   */
  decode(input: Buffer, at: number, data: (run: Buffer) => void): number {
    const end = input.length;
    let i = at;
    let runFrom = 0;
    let runTo = 0;
    while (i < end && this.#state !== DONE) {
      if (this.#state === DATA) {
        const size = Math.min(this.#left, end - i);
        if (runTo !== runFrom && runTo !== i && size > MOVED_BYTES_MAX) {
          data(input.subarray(runFrom, runTo));
          runFrom = runTo = 0;
        }
        if (runTo === runFrom) {
          runFrom = i;
          runTo = i + size;
        } else {
          if (runTo !== i) move(input, runTo, i, size);
          runTo += size;
        }
        i += size;
        this.bytes += size;
        this.#left -= size;
        if (this.#left === 0) this.#state = DATA_CR;
      } else if (this.#state === TRAILER) i = this.#takeTrailers(input, i);
      else this.#step(input[i++]!);
    }
    if (runTo !== runFrom) data(input.subarray(runFrom, runTo));
    return i;
  }

  #step(byte: number): void {
    switch (this.#state) {
      case SIZE: {
        const digit = HEX[byte]!;
        if (digit !== 255) {
          if (++this.#digits > SIZE_DIGITS_MAX) throw bad('A chunk size has more than 16 digits.');
          this.#size = this.#size * 16 + digit;
          if (this.#size > Number.MAX_SAFE_INTEGER) throw bad('A chunk is larger than 2^53 - 1 bytes.');
          return;
        }
        if (this.#digits === 0) throw bad('A chunk does not start with its size.');
        this.#afterSize(byte);
        return;
      }
      case SIZE_LF:
        if (byte !== 0x0a) throw bad('A chunk size line does not end with CRLF.');
        this.#startChunk();
        return;
      case DATA_CR:
        if (byte !== 0x0d) throw bad('Chunk data is not followed by CRLF.');
        this.#state = DATA_LF;
        return;
      case DATA_LF:
        if (byte !== 0x0a) throw bad('Chunk data is not followed by CRLF.');
        this.#state = SIZE;
        return;
      default:
        this.#stepExtension(byte);
    }
  }

  /** After the size, after an extension's name or after its value: another extension, or the end of the line. */
  #afterSize(byte: number): void {
    if (byte === 0x0d) this.#state = SIZE_LF;
    else if (byte === 0x3b) {
      this.#state = EXT_NAME;
      this.#tokenBytes = 0;
      this.#countExtension();
    } else throw bad('A chunk size is followed by a byte that is not allowed.');
  }

  /** RFC 9112 section 7.1.1 without white space: `;name`, `;name=token`, `;name="quoted"`. */
  #stepExtension(byte: number): void {
    this.#countExtension();
    switch (this.#state) {
      case EXT_NAME:
        if (TOKEN[byte] === 1) this.#tokenBytes++;
        else if (this.#tokenBytes === 0) throw bad('A chunk extension has no name.');
        else if (byte === 0x3d) {
          this.#state = EXT_VALUE;
          this.#tokenBytes = 0;
        } else this.#afterSize(byte);
        return;
      case EXT_VALUE:
        if (TOKEN[byte] === 1) this.#tokenBytes++;
        else if (this.#tokenBytes === 0) {
          if (byte !== 0x22) throw bad('A chunk extension has an empty value.');
          this.#state = EXT_QUOTED;
        } else this.#afterSize(byte);
        return;
      case EXT_QUOTED:
        if (byte === 0x22) this.#state = EXT_AFTER;
        else if (byte === 0x5c) this.#state = EXT_ESCAPED;
        else if ((byte < 0x20 && byte !== 0x09) || byte === 0x7f) throw bad('A chunk extension has a control character.');
        return;
      case EXT_ESCAPED:
        if ((byte < 0x20 && byte !== 0x09) || byte === 0x7f) throw bad('A chunk extension has a control character.');
        this.#state = EXT_QUOTED;
        return;
      default:
        this.#afterSize(byte);
    }
  }

  #countExtension(): void {
    if (++this.#extensionBytes > this.#limits.extensionBytesMax)
      throw bad(`Chunk extensions are longer than ${this.#limits.extensionBytesMax} bytes.`, 'payloadTooLarge');
  }

  #startChunk(): void {
    this.#left = this.#size;
    this.#state = this.#size === 0 ? TRAILER : DATA;
    this.#size = 0;
    this.#digits = 0;
  }

  /** Gathers the trailer section up to its empty line; answers the index after what it took. Looks at each byte once, however it is cut. */
  #takeTrailers(input: Buffer, at: number): number {
    const max = this.#limits.trailerBytesMax;
    const piece = latin1(input, at, Math.min(input.length, at + max + 4 - this.#trailerText.length));
    const tail = this.#trailerTail;
    const window = tail + piece;
    const end = window.indexOf('\r\n\r\n');
    if (end === -1) {
      // With a bare LF in it the section would never end.
      checkLineEnds(window, tail.length);
      this.#trailerText += piece;
      this.#trailerTail = window.slice(-3);
      if (this.#trailerText.length > max) throw bad(`Trailers are longer than ${max} bytes.`, 'headersTooLarge');
      return input.length;
    }
    const taken = end + 4 - tail.length;
    const text = this.#trailerText + piece.slice(0, taken);
    if (text.length > 2) {
      const values = emptyFieldValues();
      readFields(text, Buffer.from(text, 'latin1'), 0, 0, text.length - 2, 'trailer', this.#limits.trailerFieldsMax, 'ALLOW', values);
      if (values.headers.lines !== '') this.trailers = values.headers;
    }
    this.#state = DONE;
    this.#trailerText = '';
    return at + taken;
  }
}

function move(buffer: Buffer, to: number, from: number, size: number): void {
  if (size > 32) buffer.copyWithin(to, from, from + size);
  else for (let k = 0; k < size; k++) buffer[to + k] = buffer[from + k]!;
}

/** What is written after the last chunk: the zero chunk, the trailers if there are any, the empty line. */
export function lastChunk(trailers: Headers | undefined): string {
  return trailers === undefined ? '0\r\n\r\n' : `0\r\n${trailers.lines}\r\n`;
}
