/** What lies under a call of grpc-js's server: its other end, its HTTP/2 stream, past which long messages are written, and its decoder, which is replaced by ours. */
import type { Http2Stream, ServerHttp2Stream } from 'node:http2';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Peer } from './grpc-server.ts';
import { HEAD_BYTES, MessageDecoder } from './message-decoder.ts';
import type { Scratch } from './message-decoder.ts';

/** One layer of grpc-js: an interceptor around the next, or the one that has the stream. */
export interface CallLayer {
  readonly stream?: ServerHttp2Stream;
  readonly nextCall?: CallLayer;
  readonly incomingEncoding?: string;
  decoder?: Pick<MessageDecoder, 'write'>;
}

/** Undefined when grpc-js keeps it elsewhere. */
export function http2StreamOf(call: ServerDuplexStream<unknown, unknown>): Http2Stream | undefined {
  return innermost(call)?.stream;
}

/** Long messages come as a LongMessage from now on, where grpc-js has its decoder where it is known to have it. To be called before anything was read. */
export function readLongMessages(call: ServerDuplexStream<unknown, unknown>, bytesMax: number, scratch: Scratch): void {
  const inside = innermost(call);
  // What is compressed grpc-js has to unpack, for which it needs the bytes.
  if (inside?.decoder !== undefined && inside.incomingEncoding === 'identity') inside.decoder = new MessageDecoder(bytesMax, scratch);
}

/** Writes a gRPC message: a byte that says "not compressed", its length, its bytes. An error of the stream is told by its end. */
export function writePieces(stream: Http2Stream, pieces: readonly Uint8Array[], written: () => void): void {
  const prefix = Buffer.alloc(HEAD_BYTES);
  let bytes = 0;
  for (const piece of pieces) bytes += piece.length;
  prefix.writeUInt32BE(bytes, 1);
  stream.cork();
  stream.write(prefix);
  for (const piece of pieces.slice(0, -1)) stream.write(piece);
  stream.write(pieces.at(-1)!, written);
  stream.uncork();
}

/** What a call tells of its other end. */
export function peerOf(call: ServerDuplexStream<unknown, unknown>, transport: 'plaintext' | 'tls'): Peer {
  const metadata = new Map<string, string>();
  for (const [name, value] of Object.entries(call.metadata.getMap())) if (typeof value === 'string') metadata.set(name, value);
  const certificate = transport === 'tls' ? call.getAuthContext().sslPeerCertificate?.raw : undefined;
  return { address: call.getPeer(), transport, certificate, metadata };
}

function innermost(call: ServerDuplexStream<unknown, unknown>): CallLayer | undefined {
  let layer = (call as unknown as { call?: CallLayer }).call;
  while (layer !== undefined && layer.stream === undefined) layer = layer.nextCall;
  return layer;
}
