/** The frames that carry many connections over one between two sidecars: their layout, and a reader that takes bytes as they come. */

/**
 * What both sides name in ALPN to use this protocol; the number is the version of the layout below. A peer that does not know it chooses
 * another name or none, and speaks what it always did.
 */
export const MUX_ALPN = 'meshwork-mux/1';

/**
 * TLS between sidecars names `istio` in ALPN, on both sides. Only there is the protocol above offered and taken: it is a matter of what the two
 * programs can do, and no configuration says so.
 */
export function isMeshTls(tls: { readonly alpn: readonly string[] }): boolean {
  return tls.alpn.includes('istio');
}

/**
 * A frame is eight bytes, big-endian, and a payload: type (1), payload length (3), channel (4). The client opens channels, by the first `DATA`
 * of a number that is higher than all before; channel 0 is the connection itself. Bytes of a channel are those of a TCP connection: what they
 * mean is not looked at here.
 */
export const DATA = 0;
/** The sender writes no more on this channel. No payload. */
export const END = 1;
/** The channel is over at once, both ways. No payload. */
export const RESET = 2;
/** The receiver has taken so many bytes more: a 4-byte number. */
export const CREDIT = 3;
/** On channel 0: open no more channels, those there are go on. No payload. */
export const GOAWAY = 4;

export const HEADER_BYTES = 8;
/** With its header a frame fills one TLS record. */
export const PAYLOAD_BYTES_MAX = 16 * 1024 - HEADER_BYTES;
/** What either side may send on a channel ahead of credit, and so what a channel that nobody reads holds at most. */
export const WINDOW_BYTES = 256 * 1024;
/** Channels open on one connection at most. */
export const CHANNELS_MAX = 128;
/** Numbers end here; a connection that has used them up takes no more channels. */
export const CHANNEL_ID_MAX = 0x7fff_ffff;

/** The last four bytes of a header, as text: made once per channel. */
export function channelText(id: number): string {
  return String.fromCharCode((id >>> 24) & 0xff, (id >>> 16) & 0xff, (id >>> 8) & 0xff, id & 0xff);
}

/** The first four bytes of a header, as text. */
export function typeText(type: number, length: number): string {
  return String.fromCharCode(type, length >>> 16, (length >>> 8) & 0xff, length & 0xff);
}

/** A whole `CREDIT` frame. */
export function creditFrame(channel: string, bytes: number): string {
  return typeText(CREDIT, 4) + channel + channelText(bytes);
}

/** The peer does not keep to the protocol: the connection cannot go on. */
export class MuxError extends Error {
  override readonly name = 'MuxError';
}

/** Hears frames in order. `data` may come in several parts for one frame, and its bytes stand only until it returns. */
export interface FrameSink {
  data(channel: number, bytes: Buffer): void;
  end(channel: number): void;
  reset(channel: number): void;
  credit(channel: number, bytes: number): void;
  goaway(): void;
}

/** Cuts bytes into frames. Holds at most one header and a number between reads. */
export class FrameReader {
  readonly #sink: FrameSink;
  /** A header or a credit that is not complete yet. */
  #partial: Buffer | undefined;
  /** The `DATA` frame under way. */
  #channel = 0;
  #left = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Takes `buffer[0, bytes)`. Throws `MuxError`; nothing may be read after that. */
  read(buffer: Buffer, bytes: number): void {
    let at = 0;
    if (this.#partial !== undefined) {
      buffer = Buffer.concat([this.#partial, buffer.subarray(0, bytes)]);
      bytes = buffer.length;
      this.#partial = undefined;
    }
    while (at < bytes) {
      if (this.#left > 0) {
        const end = Math.min(bytes, at + this.#left);
        this.#left -= end - at;
        this.#sink.data(this.#channel, buffer.subarray(at, end));
        at = end;
        continue;
      }
      const next = at + HEADER_BYTES > bytes ? -1 : this.#frame(buffer, at, bytes);
      if (next === -1) {
        this.#partial = Buffer.from(buffer.subarray(at, bytes));
        return;
      }
      at = next;
    }
  }

  /** Reads the header at `at`, and the payload of all but `DATA`. Answers where it ends, -1 when there must be more. */
  #frame(buffer: Buffer, at: number, bytes: number): number {
    const type = buffer[at]!;
    const length = (buffer[at + 1]! << 16) | (buffer[at + 2]! << 8) | buffer[at + 3]!;
    const channel = buffer.readUInt32BE(at + 4);
    const body = at + HEADER_BYTES;
    if ((channel === 0) !== (type === GOAWAY)) throw new MuxError(`A frame of type ${type} must not be for channel ${channel}.`);
    if (channel > CHANNEL_ID_MAX) throw new MuxError(`A channel's number is at most ${CHANNEL_ID_MAX}, received ${channel}.`);
    if (type === DATA) {
      if (length === 0 || length > PAYLOAD_BYTES_MAX)
        throw new MuxError(`A frame carries 1 to ${PAYLOAD_BYTES_MAX} bytes, received ${length}.`);
      this.#channel = channel;
      this.#left = length;
      return body;
    }
    if (length !== (type === CREDIT ? 4 : 0)) throw new MuxError(`A frame of type ${type} must not have ${length} bytes.`);
    switch (type) {
      case END:
        this.#sink.end(channel);
        return body;
      case RESET:
        this.#sink.reset(channel);
        return body;
      case CREDIT: {
        if (body + 4 > bytes) return -1;
        const credit = buffer.readUInt32BE(body);
        if (credit === 0 || credit > WINDOW_BYTES) throw new MuxError(`Credit is 1 to ${WINDOW_BYTES} bytes, received ${credit}.`);
        this.#sink.credit(channel, credit);
        return body + 4;
      }
      case GOAWAY:
        this.#sink.goaway();
        return body;
      default:
        throw new MuxError(`There is no frame of type ${type}.`);
    }
  }
}
