/** What an outsider or a broken proxy might do to an xDS port, one function per kind; each goes on until its process is ended. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { connect as http2 } from 'node:http2';
import { connect as tcp } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { connect as tls } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { encodeDeltaRequest, encodeSotwRequest } from '../../xds/resources/discovery.ts';
import { decodeDeltaResponse, decodeSotwResponse } from '../../xds/resources/discovery.ts';
import type { ErrorDetail, Mode } from '../../xds/session/messages.ts';
import { testNode } from '../../xds/session/testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE } from '../../xds/session/type-urls.ts';

export interface AttackTarget {
  readonly port: number;
  readonly mode: Mode;
  /** Undefined = plaintext. Without a certificate it is an outsider on the TLS port. */
  readonly tls?: { readonly rootsPem: string; readonly chainPem?: string; readonly keyPem?: string };
  /** Endpoints that change all the time. */
  readonly watched: string;
  /** Who the attacker is, or says that it is. */
  readonly nodeId: string;
}

const MIB = 1024 * 1024;
const LOAD_REPORTS = '/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats';
const CLIENT_STATUS = '/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus';
const HEALTH_WATCH = '/grpc.health.v1.Health/Watch';

/** Refusals and resets are what the other end is meant to answer with. */
const expected = (): void => undefined;

interface Request {
  readonly typeUrl?: string;
  readonly names?: readonly string[];
  readonly dropped?: readonly string[];
  readonly nonce?: string;
  readonly error?: ErrorDetail;
  readonly node?: Parameters<typeof testNode>[0];
}

export class Attacker {
  readonly target: AttackTarget;
  /** What it has done so far, so that a test knows that it was attacked at all. */
  readonly did = { connections: 0, streams: 0, megabytes: 0 };
  constructor(target: AttackTarget) {
    this.target = target;
  }

  get #tlsOptions(): { ca: string; cert?: string; key?: string; servername: string } {
    const { rootsPem, chainPem, keyPem } = this.target.tls!;
    return { ca: rootsPem, servername: 'localhost', ...(chainPem === undefined ? {} : { cert: chainPem, key: keyPem! }) };
  }

  session(settings: object = {}): ClientHttp2Session {
    const { port } = this.target;
    const session =
      this.target.tls === undefined
        ? http2(`http://127.0.0.1:${port}`, { settings })
        : http2(`https://127.0.0.1:${port}`, { settings, ...this.#tlsOptions });
    session.on('error', expected);
    this.did.connections += 1;
    return session;
  }

  /** Bytes below HTTP/2. */
  socket(raw = false): Socket {
    const { port } = this.target;
    const socket =
      raw || this.target.tls === undefined
        ? tcp(port, '127.0.0.1')
        : tls({ port, host: '127.0.0.1', ALPNProtocols: ['h2'], ...this.#tlsOptions });
    socket.on('error', expected);
    this.did.connections += 1;
    return socket;
  }

  stream(session: ClientHttp2Session, headers: Record<string, string> = {}): ClientHttp2Stream {
    const method = this.target.mode === 'delta' ? 'DeltaAggregatedResources' : 'StreamAggregatedResources';
    const path = `/envoy.service.discovery.v3.AggregatedDiscoveryService/${method}`;
    const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...headers });
    stream.on('error', expected);
    this.did.streams += 1;
    return stream;
  }

  request({ typeUrl = CLUSTER_TYPE, names = [], dropped = [], nonce = '', error, node }: Request): Buffer {
    const shared = { typeUrl, responseNonce: nonce, ...(error === undefined ? {} : { error }) };
    const who = node === undefined ? {} : { node: testNode({ id: this.target.nodeId, ...node }) };
    if (this.target.mode === 'sotw') return encodeSotwRequest({ mode: 'sotw', versionInfo: '', resourceNames: names, ...shared, ...who });
    return encodeDeltaRequest({ mode: 'delta', subscribe: names, unsubscribe: dropped, initialVersions: new Map(), ...shared, ...who });
  }

  /** Writes until the peer's window is full, then waits; answers false when the stream is over. */
  async write(stream: ClientHttp2Stream | Socket, bytes: Uint8Array): Promise<boolean> {
    if (stream.destroyed || stream.closed || !stream.writable) return false;
    this.did.megabytes += bytes.length / MIB;
    if (stream.write(bytes)) return true;
    await new Promise<void>((resolve) => {
      const go = (): void => {
        for (const event of ['drain', 'close', 'error']) stream.off(event, go);
        resolve();
      };
      for (const event of ['drain', 'close', 'error']) stream.on(event, go);
    });
    return !stream.destroyed;
  }

  /** Runs `attack` with a stream that has said who it is, and again on a new one when it was ended. */
  async again(attack: (stream: ClientHttp2Stream) => Promise<unknown>, node: Request['node'] = {}): Promise<never> {
    for (;;) {
      const session = this.session();
      const stream = this.stream(session);
      stream.resume();
      if (await this.write(stream, framed(this.request({ node }))))
        await Promise.race([attack(stream), new Promise((resolve) => stream.once('end', resolve))]);
      session.destroy();
      await pause(5);
    }
  }
}

/** A gRPC message with its length before it. */
export function framed(message: Uint8Array, compressed = false, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head[0] = compressed ? 1 : 0;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** A field of bytes, as protobuf writes it. */
function field(number: number, value: Uint8Array): Buffer {
  const head = [(number << 3) | 2];
  let length = value.length;
  while (length > 127) {
    head.push((length & 127) | 128);
    length = Math.floor(length / 128);
  }
  return Buffer.concat([Buffer.from([...head, length]), value]);
}

async function forever(): Promise<never> {
  for (;;) await pause(60_000);
}

/** Every message that arrives is answered by what `answer` makes of its nonce. */
function answering(attacker: Attacker, stream: ClientHttp2Stream, answer: (typeUrl: string, nonce: string) => Buffer): void {
  let kept = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]);
    while (kept.length >= 5 && kept.length >= 5 + kept.readUInt32BE(1)) {
      const message = kept.subarray(5, 5 + kept.readUInt32BE(1));
      kept = kept.subarray(5 + message.length);
      const { typeUrl, nonce } = attacker.target.mode === 'delta' ? decodeDeltaResponse(message) : decodeSotwResponse(message);
      if (stream.writable) stream.write(framed(answer(typeUrl, nonce)));
    }
  });
}

export const ATTACKS = {
  'messages of 64 MiB that never end, on all streams of eight connections': async (attacker: Attacker) => {
    const block = Buffer.alloc(MIB);
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (;;) {
          const session = attacker.session();
          await Promise.all(
            Array.from({ length: 100 }, async () => {
              const stream = attacker.stream(session);
              stream.resume();
              await attacker.write(stream, framed(Buffer.alloc(0), false, 64 * MIB));
              for (let sent = 0; sent < 63; sent++) if (!(await attacker.write(stream, block))) return;
              await new Promise((resolve) => stream.once('close', resolve));
            }),
          );
          session.destroy();
          await pause(50);
        }
      }),
    );
  },
  'whole messages of 64 MiB': (attacker: Attacker) =>
    attacker.again(async (stream) => {
      const message = framed(Buffer.concat([field(10, Buffer.alloc(63 * MIB, 97))]));
      while (await attacker.write(stream, message)) await pause(1);
    }),
  'whole messages of nothing but empty names': (attacker: Attacker) =>
    attacker.again(async (stream) => {
      // Field 3 is the names in both messages: two bytes on the wire, an object in memory.
      const message = framed(Buffer.alloc(32 * MIB, Buffer.from([(3 << 3) | 2, 0])));
      while (await attacker.write(stream, message)) await pause(1);
    }),
  'a message of 60 KiB that unpacks to 60 MiB': async (attacker: Attacker) => {
    const bomb = framed(gzipSync(Buffer.alloc(60 * MIB, Buffer.from([(3 << 3) | 2, 0]))), true);
    for (;;) {
      const session = attacker.session();
      const streams = Array.from({ length: 20 }, () => attacker.stream(session, { 'grpc-encoding': 'gzip' }).resume());
      await Promise.all(streams.map((stream) => attacker.write(stream, bomb)));
      await pause(200);
      session.destroy();
    }
  },
  'never reads': async (attacker: Attacker) => {
    for (let connection = 0; connection < 5; connection++) {
      const session = attacker.session({ initialWindowSize: 0 });
      for (let count = 0; count < 20; count++) {
        const stream = attacker.stream(session);
        for (const typeUrl of [CLUSTER_TYPE, ENDPOINT_TYPE]) stream.write(framed(attacker.request({ typeUrl, names: ['*'], node: {} })));
      }
    }
    return forever();
  },
  'rejects everything, each time with an error of a megabyte': (attacker: Attacker) =>
    attacker.again(async (stream) => {
      const error = { code: 3, message: 'no '.repeat(MIB / 3) };
      answering(attacker, stream, (typeUrl, nonce) => attacker.request({ typeUrl, nonce, error }));
      stream.write(framed(attacker.request({ typeUrl: ENDPOINT_TYPE, names: [attacker.target.watched] })));
      await new Promise((resolve) => stream.once('close', resolve));
    }),
  garbage: (attacker: Attacker) =>
    attacker.again(async (stream) => {
      while (await attacker.write(stream, framed(randomBytes(1_000)))) await pause(1);
    }),
  'claims to be another node': async (attacker: Attacker) => {
    const other = { id: 'good.default' };
    for (;;)
      await Promise.race([attacker.again((stream) => attacker.write(stream, framed(attacker.request({ node: other })))), pause(2_000)]);
  },
  '100,000 names in one subscription, on many streams': async (attacker: Attacker) => {
    const names = Array.from({ length: 100_000 }, (_, index) => `outbound|80||service-${index}.somewhere.svc.cluster.local`);
    const message = framed(attacker.request({ typeUrl: ENDPOINT_TYPE, names }));
    await Promise.all(
      Array.from({ length: 10 }, () =>
        attacker.again(async (stream) => {
          await attacker.write(stream, message);
          await Promise.race([new Promise((resolve) => stream.once('close', resolve)), pause(3_000)]);
        }),
      ),
    );
  },
  'ever new names on a hundred streams': async (attacker: Attacker) => {
    let name = 0;
    await Promise.all(
      Array.from({ length: 100 }, () =>
        attacker.again(async (stream) => {
          for (;;) {
            const names = Array.from({ length: 2_000 }, () => `new-${name++}`);
            if (!(await attacker.write(stream, framed(attacker.request({ typeUrl: `${ENDPOINT_TYPE}${name % 30}`, names }))))) return;
            await pause(20);
          }
        }),
      ),
    );
  },
  'endless subscribing and unsubscribing': (attacker: Attacker) =>
    attacker.again(async (stream) => {
      let before: string[] = [];
      for (let round = 0; ; round++) {
        const names = Array.from({ length: 1_000 }, (_, index) => `round-${round}-${index}`);
        if (!(await attacker.write(stream, framed(attacker.request({ typeUrl: ENDPOINT_TYPE, names, dropped: before }))))) return;
        before = names;
        if (round % 10 === 0) await pause(1);
      }
    }),
  'thousands of streams on one connection': async (attacker: Attacker) => {
    for (;;) {
      const session = attacker.session();
      for (let count = 0; count < 5_000 && !session.destroyed; count++) {
        const stream = attacker.stream(session).resume();
        if (count % 2 === 0) stream.write(framed(attacker.request({ node: {} })));
        if (count % 500 === 0) await pause(20);
      }
      await pause(500);
      session.destroy();
    }
  },
  'streams that are reset as soon as they are open': async (attacker: Attacker) => {
    for (;;) {
      const session = attacker.session();
      for (let count = 0; count < 100_000 && !session.destroyed && !session.closed; count++) {
        const stream = attacker.stream(session).resume();
        stream.write(framed(attacker.request({ node: {} })));
        stream.close(8);
        if (count % 100 === 0) await pause(0);
      }
      session.destroy();
      await pause(5);
    }
  },
  'a thousand connections with a hundred silent streams each': async (attacker: Attacker) => {
    const sessions: ClientHttp2Session[] = [];
    for (;;) {
      while (sessions.length < 1_000) {
        const session = attacker.session();
        for (let count = 0; count < 100; count++) attacker.stream(session).resume();
        sessions.push(session);
        if (sessions.length % 20 === 0) await pause(10);
      }
      await pause(100);
      for (const session of sessions.splice(0)) if (!session.destroyed) sessions.push(session);
    }
  },
  'two thousand connections that say nothing': async (attacker: Attacker) => {
    let open: Socket[] = [];
    for (;;) {
      while (open.length < 2_000) {
        open.push(attacker.socket(true));
        if (open.length % 50 === 0) await pause(5);
      }
      await pause(100);
      open = open.filter((socket) => !socket.destroyed);
    }
  },
  'a node with 20 MB of metadata': (attacker: Attacker) =>
    attacker.again(async (stream) => attacker.write(stream, framed(Buffer.alloc(1))), { metadata: { padding: 'y'.repeat(20_000_000) } }),
  'a node of a million empty values': (attacker: Attacker) =>
    attacker.again(async (stream) => attacker.write(stream, framed(Buffer.alloc(1))), {
      metadata: { list: Array.from({ length: 1_000_000 }, () => null) },
    }),
  'a node that nests five hundred deep': (attacker: Attacker) => {
    let value: unknown = null;
    for (let depth = 0; depth < 500; depth++) value = [value];
    return attacker.again(async (stream) => attacker.write(stream, framed(Buffer.alloc(1))), { metadata: { list: value as never } });
  },
  'types that nobody knows, and the same again': (attacker: Attacker) =>
    attacker.again(async (stream) => {
      for (let round = 0; ; round++) {
        const typeUrl = `type.googleapis.com/made.up.T${round % 60}`;
        for (let twice = 0; twice < 2; twice++)
          if (!(await attacker.write(stream, framed(attacker.request({ typeUrl, names: [`n${round}`] }))))) return;
        if (round % 100 === 0) await pause(1);
      }
    }),
  'acknowledgements of what was never sent, at full speed': (attacker: Attacker) =>
    attacker.again(async (stream) => {
      for (let round = 0; ; round++) {
        if (!(await attacker.write(stream, framed(attacker.request({ nonce: `bogus-${round}` }))))) return;
        if (round % 100 === 0) await pause(0);
      }
    }),
  'HTTP/1.1, TLS and noise on the port': async (attacker: Attacker) => {
    const openings = [
      Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
      Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      randomBytes(65_536),
      Buffer.alloc(65_536),
    ];
    for (let round = 0; ; round++) {
      const socket = attacker.socket(round % 2 === 0);
      socket.resume();
      socket.write(openings[round % openings.length]!);
      setTimeout(() => socket.destroy(), 1_000).unref();
      await pause(2);
    }
  },
  'pings, settings and empty frames at full speed': async (attacker: Attacker) => {
    const frame = (type: number, payload: Buffer, stream = 0): Buffer => {
      const head = Buffer.alloc(9);
      head.writeUIntBE(payload.length, 0, 3);
      head[3] = type;
      head.writeUInt32BE(stream, 5);
      return Buffer.concat([head, payload]);
    };
    const flood = Buffer.concat(Array.from({ length: 500 }, () => Buffer.concat([frame(6, Buffer.alloc(8)), frame(4, Buffer.alloc(0))])));
    for (;;) {
      // It does not read the answers.
      const socket = attacker.socket();
      socket.pause();
      socket.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, Buffer.alloc(0))]));
      for (let round = 0; round < 2_000; round++) {
        if (!(await Promise.race([attacker.write(socket, flood), pause(500, false)]))) break;
        await pause(0);
      }
      socket.destroy();
    }
  },
  'load reports of ever new clusters': async (attacker: Attacker) => {
    for (let round = 0; ; round++) {
      const session = attacker.session();
      const stream = attacker.stream(session, { ':path': LOAD_REPORTS });
      stream.resume();
      const node = framed(field(1, field(1, Buffer.from(attacker.target.nodeId))));
      let going = await attacker.write(stream, node);
      for (let report = 0; going && report < 1_000; report++) {
        const clusters = Array.from({ length: 1_000 }, (_, index) =>
          field(2, field(1, Buffer.from(`made-up-${round}-${report}-${index}`))),
        );
        going = await attacker.write(stream, framed(Buffer.concat(clusters)));
        await pause(1);
      }
      session.destroy();
      await pause(5);
    }
  },
  'client status asked for and not read': async (attacker: Attacker) => {
    for (let connection = 0; connection < 10; connection++) {
      const session = attacker.session({ initialWindowSize: 0 });
      for (let count = 0; count < 100; count++) {
        const stream = attacker.stream(session, { ':path': CLIENT_STATUS });
        for (let asked = 0; asked < 20; asked++) await attacker.write(stream, framed(Buffer.alloc(0)));
      }
    }
    return forever();
  },
  'health watched a hundred times on fifty connections': async (attacker: Attacker) => {
    for (let connection = 0; connection < 50; connection++) {
      const session = attacker.session();
      for (let count = 0; count < 100; count++)
        attacker
          .stream(session, { ':path': HEALTH_WATCH })
          .resume()
          .end(framed(Buffer.alloc(0)));
      await pause(10);
    }
    return forever();
  },
} satisfies Record<string, (attacker: Attacker) => Promise<unknown>>;

export type AttackKind = keyof typeof ATTACKS;
