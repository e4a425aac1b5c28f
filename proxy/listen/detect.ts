/** Looks at the first bytes of a connection, for the listener filters that ask for it, and gives the bytes back. */
import { HELLO_BYTES_MAX, readClientHello } from '../tls/client-hello.ts';
import type { Socket } from 'node:net';
import type { Clock } from '../../lib/clock.ts';

export interface DetectOptions {
  readonly tls: boolean;
  readonly http: boolean;
  /** 0 = the longest that is allowed. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

export interface Detected {
  /** `tls` or `raw_buffer`. */
  readonly transportProtocol: string;
  readonly serverName: string;
  /** ALPN of a ClientHello; for plaintext `http/1.0`, `http/1.1` or `h2c` when the HTTP inspector saw one. */
  readonly applicationProtocols: readonly string[];
  /** `timeout`: the client sent too little in time; `closed`: it went away first; `malformed`: TLS that must not be answered. */
  readonly outcome: 'detected' | 'timeout' | 'closed' | 'malformed';
}

/** A peek waits this long at most, whatever the configuration says (a silent client must not hold a slot for ever). */
export const DETECT_MS_MAX = 10_000;

const NOTHING = { transportProtocol: 'raw_buffer', serverName: '', applicationProtocols: [] as readonly string[] };

/** Resolves when the protocol is known, the time is over, or the client left. What was read is put back into the socket. Never rejects. */
export function detect(socket: Socket, options: DetectOptions): Promise<Detected> {
  return new Promise((resolve) => {
    let seen: Buffer = Buffer.alloc(0);
    const finish = (detected: Detected): void => {
      cancelTimer();
      socket.off('readable', onReadable);
      socket.off('end', onGone);
      socket.off('close', onGone);
      if (seen.length > 0) socket.unshift(seen);
      resolve(detected);
    };
    const onReadable = (): void => {
      for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null) {
        seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
      }
      const detected = inspect(seen, options);
      if (detected !== undefined) finish(detected);
    };
    const onGone = (): void => finish({ ...NOTHING, outcome: 'closed' });
    const timeoutMs = options.timeoutMs > 0 ? Math.min(options.timeoutMs, DETECT_MS_MAX) : DETECT_MS_MAX;
    const cancelTimer = options.clock.after(timeoutMs, () => finish({ ...NOTHING, outcome: 'timeout' }));
    socket.on('readable', onReadable);
    socket.on('end', onGone);
    socket.on('close', onGone);
  });
}

/** What the bytes so far say; undefined = more are needed. */
export function inspect(bytes: Buffer, wanted: { readonly tls: boolean; readonly http: boolean }): Detected | undefined {
  if (bytes.length === 0) return undefined;
  if (wanted.tls) {
    const hello = readClientHello(bytes);
    if (hello.kind === 'more') return bytes.length < HELLO_BYTES_MAX ? undefined : { ...NOTHING, outcome: 'malformed' };
    if (hello.kind === 'malformed') return { ...NOTHING, outcome: 'malformed' };
    if (hello.kind === 'hello')
      return {
        transportProtocol: 'tls',
        serverName: hello.serverName,
        applicationProtocols: hello.applicationProtocols,
        outcome: 'detected',
      };
  }
  if (!wanted.http) return { ...NOTHING, outcome: 'detected' };
  const protocol = readHttpVersion(bytes);
  if (protocol === undefined) return undefined;
  return { ...NOTHING, applicationProtocols: protocol === '' ? [] : [protocol], outcome: 'detected' };
}

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const REQUEST_LINE = /^(?:\r?\n)?[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\s]+ (HTTP\/1\.[01])\r?$/;
const REQUEST_LINE_START =
  /^(?:\r?\n)?[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}(?: [^\s]*(?: (?:H(?:T(?:T(?:P(?:\/(?:1(?:\.(?:[01]\r?)?)?)?)?)?)?)?)?)?)?$/;
const REQUEST_LINE_BYTES_MAX = 16 * 1024;

/** `http/1.0`, `http/1.1`, `h2c`, empty for something else, undefined while it could still be one of them. */
function readHttpVersion(bytes: Buffer): string | undefined {
  const text = bytes.subarray(0, REQUEST_LINE_BYTES_MAX).toString('latin1');
  if (text.startsWith(PREFACE)) return 'h2c';
  if (PREFACE.startsWith(text)) return undefined;
  const lineEnd = text.indexOf('\n', 2);
  if (lineEnd === -1) return text.length < REQUEST_LINE_BYTES_MAX && REQUEST_LINE_START.test(text) ? undefined : '';
  const match = REQUEST_LINE.exec(text.slice(0, lineEnd));
  return match === null ? '' : match[1]!.toLowerCase();
}
