/** Reads the bodies of one connection's messages: by length, chunked or until the close, whole where possible. */
import type { Headers } from '../headers.ts';
import type { Body } from '../service.ts';
import { FlowingBody, TextBody, wholeBody } from './body.ts';
import { TEXT_BYTES_MAX } from './bytes.ts';
import type { BodySource } from './body.ts';
import { ChunkedDecoder } from './chunked.ts';
import type { ChunkedLimits } from './chunked.ts';
import { kept, readIntoOwn } from './reading.ts';

const EMPTY = Buffer.alloc(0);
/** Chunk extensions serve nobody; this many bytes of them in a body are an attack (CVE-2023-39326). */
const EXTENSION_BYTES_MAX = 16 * 1024;

/** Bodies shorter than this come in a read or two: not worth a buffer of their own. */
const OWN_BUFFER_BYTES_MIN = 64 * 1024;
/** Nor is one that trickles: five thousand slow clients would have 320 MiB, which the collector reckons with. A read of so much shows a stream. */
const STREAM_READ_BYTES_MIN = 8 * 1024;

const LENGTH = 0;
const CHUNKED = 1;
const CLOSE = 2;

/** Limits of a body's trailers, from those of heads. */
export interface BodyLimits {
  readonly headBytesMax: number;
  readonly headerFieldsMax: number;
}

export class BodyReader {
  readonly #source: BodySource;
  readonly #limits: ChunkedLimits;
  #framing = LENGTH;
  #left = 0;
  #decoder: ChunkedDecoder | undefined;
  /** Ends the time in which the socket reads into a buffer of its own. */
  #giveBack: (() => Buffer | undefined) | undefined;
  /** The body that flows; undefined when the message's body is read to its end. */
  body: FlowingBody | undefined;
  /** After `begin` and `read`: index of the first byte after the body, -1 while there is more to come. */
  next = -1;
  /** Content bytes read of this body. */
  bytes = 0;

  constructor(source: BodySource, limits: BodyLimits) {
    this.#source = source;
    this.#limits = {
      extensionBytesMax: EXTENSION_BYTES_MAX,
      trailerBytesMax: limits.headBytesMax,
      trailerFieldsMax: limits.headerFieldsMax,
    };
  }

  /** The body of a request whose head ends at `text[at]`; `text` starts at `buffer[0]`, of which `bytes` were read. Undefined = it has none. */
  beginRequest(
    { chunked, contentLength }: { readonly chunked: boolean; readonly contentLength: number },
    text: string,
    buffer: Buffer,
    bytes: number,
    at: number,
  ): Body | undefined {
    if (chunked) return this.beginChunked(buffer.subarray(0, bytes), at);
    if (contentLength > 0) {
      const isText = contentLength <= TEXT_BYTES_MAX && text.length - at >= contentLength;
      return isText ? this.beginText(contentLength, text, at) : this.beginLength(contentLength, buffer.subarray(0, bytes), at);
    }
    this.next = at;
    this.bytes = 0;
    return undefined;
  }

  /** A body of `length` bytes that starts at `text[at]` and is all in `text`. */
  beginText(length: number, text: string, at: number): Body {
    this.next = at + length;
    this.bytes = length;
    return new TextBody(text.slice(at, at + length));
  }

  /** A body of `length` bytes that starts at `chunk[at]`. */
  beginLength(length: number, chunk: Buffer, at: number): Body {
    if (chunk.length - at >= length) {
      this.next = at + length;
      this.bytes = length;
      return wholeBody(length === 0 ? EMPTY : kept(chunk.subarray(at, at + length)));
    }
    this.#framing = LENGTH;
    this.#left = length;
    return this.#flow(length, chunk, at);
  }

  /** A body that ends with the connection. */
  beginUntilClose(chunk: Buffer, at: number): Body {
    this.#framing = CLOSE;
    return this.#flow(undefined, chunk, at);
  }

  /** A chunked body. One that is all there is made whole: its length then frames it on the next hop. Throws for broken coding. */
  beginChunked(chunk: Buffer, at: number): Body {
    this.#decoder ??= new ChunkedDecoder(this.#limits);
    const decoder = this.#decoder;
    decoder.reset();
    this.#framing = CHUNKED;
    let runs: Buffer | Buffer[] | undefined;
    const end = decoder.decode(chunk, at, (run) => {
      if (runs === undefined) runs = run;
      else if (Array.isArray(runs)) runs.push(run);
      else runs = [runs, run];
    });
    const all = runs as Buffer | Buffer[] | undefined;
    this.bytes = decoder.bytes;
    if (decoder.done && decoder.trailers === undefined) {
      this.next = end;
      return wholeBody(all === undefined ? EMPTY : Array.isArray(all) ? Buffer.concat(all) : kept(all));
    }
    this.next = -1;
    const body = new FlowingBody(this.#source, undefined);
    if (Array.isArray(all)) for (const run of all) body.push(run);
    else if (all !== undefined) body.push(all);
    if (decoder.done) {
      this.next = end;
      body.end(decoder.trailers);
    } else {
      this.body = body;
      this.#wantOwnBuffer(chunk.length);
    }
    return body;
  }

  /** More bytes of the body that flows. Throws for broken chunked coding. When `next` is not -1, the caller calls `endOf` on the body it had. */
  read(chunk: Buffer, at: number): void {
    const body = this.body!;
    if (this.#framing === CHUNKED) {
      const decoder = this.#decoder!;
      const end = decoder.decode(chunk, at, (run) => body.push(run));
      this.bytes = decoder.bytes;
      this.next = decoder.done ? end : -1;
    } else {
      const size = this.#framing === LENGTH ? Math.min(this.#left, chunk.length - at) : chunk.length - at;
      this.bytes += size;
      this.#left -= size;
      this.next = this.#framing === LENGTH && this.#left === 0 ? at + size : -1;
      if (size > 0) body.push(size === chunk.length ? chunk : chunk.subarray(at, at + size));
    }
    if (this.next === -1) this.#wantOwnBuffer(chunk.length);
    else {
      this.body = undefined;
      const own = this.#giveBack?.();
      this.#giveBack = undefined;
      if (own !== undefined) body.release(own);
    }
  }

  /** The trailers of the body that was read last. */
  get trailers(): Headers | undefined {
    return this.#framing === CHUNKED ? this.#decoder!.trailers : undefined;
  }

  /** Does only the end of the connection end this body? */
  get untilClose(): boolean {
    return this.body !== undefined && this.#framing === CLOSE;
  }

  /** Takes the flowing body away: nothing more of it will be read. */
  drop(): FlowingBody | undefined {
    const body = this.body;
    this.body = undefined;
    return body;
  }

  #flow(length: number | undefined, chunk: Buffer, at: number): Body {
    const body = new FlowingBody(this.#source, length);
    this.body = body;
    this.bytes = 0;
    this.next = -1;
    if (at < chunk.length) this.read(chunk, at);
    return body;
  }

  /** The next read may go into a buffer of the socket's own, if this one of `bytes` shows that the body streams. */
  #wantOwnBuffer(bytes: number): void {
    if (bytes < STREAM_READ_BYTES_MIN || this.#giveBack !== undefined) return;
    if ((this.body?.length ?? Number.POSITIVE_INFINITY) > OWN_BUFFER_BYTES_MIN) this.#giveBack = readIntoOwn(this.#source.socket);
  }
}
