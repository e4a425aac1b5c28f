import { Buffer } from 'node:buffer';
import { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import type { ConnectionOptions } from 'node:tls';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { HELLO_BYTES_MAX, readClientHello } from './client-hello.ts';

/** What Node's own client sends first. */
function helloOf(options: ConnectionOptions): Promise<Buffer> {
  return new Promise((resolve) => {
    const wire = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        resolve(Buffer.from(chunk));
        setImmediate(() => client.destroy());
        done();
      },
    });
    const client = connect({ socket: wire, rejectUnauthorized: false, ...options });
    client.on('error', () => undefined);
  });
}

const kindOf = (bytes: Buffer): string => readClientHello(bytes).kind;

/** Cuts a record's payload into many records. */
function split(record: Buffer, size: number): Buffer {
  const payload = record.subarray(5);
  const parts: Buffer[] = [];
  for (let at = 0; at < payload.length; at += size) {
    const part = payload.subarray(at, at + size);
    parts.push(Buffer.from([0x16, 3, 1, part.length >> 8, part.length & 255]), part);
  }
  return Buffer.concat(parts);
}

/** A hello whose only extension is the given one. */
function helloWith(type: number, value: Buffer): Buffer {
  const sized = (content: Buffer): Buffer => Buffer.concat([Buffer.of(content.length >> 8, content.length & 255), content]);
  const extensions = sized(Buffer.concat([Buffer.of(type >> 8, type & 255), sized(value)]));
  const body = Buffer.concat([Buffer.from('0303', 'hex'), Buffer.alloc(32), Buffer.from('00000213010100', 'hex'), extensions]);
  return Buffer.concat([Buffer.from('160301', 'hex'), sized(Buffer.concat([Buffer.of(1, 0, body.length >> 8, body.length & 255), body]))]);
}
const serverName = (name: string): Buffer => {
  const bytes = Buffer.from(name, 'latin1');
  return helloWith(
    0,
    Buffer.concat([Buffer.of((bytes.length + 3) >> 8, (bytes.length + 3) & 255, 0, bytes.length >> 8, bytes.length & 255), bytes]),
  );
};

test('a hello of node tells server name, protocols and versions', async () => {
  const hello = await helloOf({ servername: 'Reviews.Default.svc', ALPNProtocols: ['istio', 'h2'], minVersion: 'TLSv1.2' });

  expect(readClientHello(hello)).toEqual({
    kind: 'hello',
    serverName: 'reviews.default.svc',
    applicationProtocols: ['istio', 'h2'],
    versions: [0x0304, 0x0303],
  });
});

test('a hello without extensions of interest has empty answers', async () => {
  const hello = await helloOf({ maxVersion: 'TLSv1.2' });

  expect(readClientHello(hello)).toEqual({ kind: 'hello', serverName: '', applicationProtocols: [], versions: [0x0303] });
});

test('every beginning of a hello asks for more, and bytes after it do not matter', async () => {
  const hello = await helloOf({ servername: 'a.test', ecdhCurve: 'X25519MLKEM768:X25519' });

  for (let length = 0; length < hello.length; length++) expect(kindOf(hello.subarray(0, length))).toBe('more');
  expect(readClientHello(Buffer.concat([hello, Buffer.from('junk')]))).toEqual(readClientHello(hello));
});

test.each([1, 2, 3, 7, 100])('a hello cut into records of %i bytes is the same hello', async (size) => {
  const hello = await helloOf({ servername: 'a.test', ALPNProtocols: ['h2'] });
  const cut = split(hello, size);

  expect(readClientHello(cut)).toEqual(readClientHello(hello));
  for (let length = 0; length < cut.length; length += 3) expect(kindOf(cut.subarray(0, length))).toBe('more');
});

test.each([
  ['an HTTP request', 'GET / HTTP/1.1\r\n'],
  ['an HTTP/2 preface', 'PRI * HTTP/2.0\r\n'],
  ['an SSLv2 hello', '\x80\x2e\x01\x00\x02'],
  ['another version byte', '\x16\x02'],
  ['a server hello', '\x16\x03\x01\x00\x05\x02'],
  ['an alert', '\x15\x03\x01'],
])('%s is not TLS', (_name, text) => {
  expect(kindOf(Buffer.from(text, 'latin1'))).toBe('other');
});

test.each([
  ['empty', ''],
  ['300 bytes', 'a'.repeat(300)],
  ['with a NUL', 'a\0b.test'],
  ['with a space', 'a b'],
  ['with a slash', 'a/b'],
  ['with a byte above ASCII', 'b\u00fccher.test'],
  ['with an empty label', 'a..b'],
])('case 90: a server name that is %s is malformed', (_name, name) => {
  expect(kindOf(serverName(name))).toBe('malformed');
});

test('case 90: an IP address is no server name, and a final dot does not count', () => {
  expect(readClientHello(serverName('127.0.0.1'))).toMatchObject({ serverName: '' });
  expect(readClientHello(serverName('A.Test.'))).toMatchObject({ serverName: 'a.test' });
  expect(readClientHello(serverName('outbound_.80_._.reviews.default.svc'))).toMatchObject({
    serverName: 'outbound_.80_._.reviews.default.svc',
  });
});

test.each([
  ['an empty protocol', helloWith(16, Buffer.from('000100', 'hex'))],
  ['33 protocols', helloWith(16, Buffer.concat([Buffer.of(0, 66), ...Array.from({ length: 33 }, () => Buffer.of(1, 97))]))],
  ['a protocol list that is longer than its extension', helloWith(16, Buffer.from('00ff0161', 'hex'))],
  ['an empty record', Buffer.from('1603010000', 'hex')],
  ['a record of 16,385 bytes', Buffer.from('1603014001', 'hex')],
  ['a hello of 16 MiB', Buffer.from('1603010004' + '01ffffff', 'hex')],
  ['an alert in the middle', Buffer.concat([Buffer.from('16030100040100002a', 'hex'), Buffer.from('1503010002', 'hex')])],
])('%s is malformed', (_name, bytes) => {
  expect(kindOf(bytes)).toBe('malformed');
});

test('an endless hello is given up at the limit', () => {
  const records = Buffer.concat(
    Array.from({ length: HELLO_BYTES_MAX / 6 + 1 }, (_, i) => Buffer.from([0x16, 3, 1, 0, 1, i === 0 ? 1 : 0x3f])),
  );

  expect(kindOf(records.subarray(0, HELLO_BYTES_MAX))).toBe('malformed');
});

test('no bytes make it throw, and none of its answers is longer than what came in', async () => {
  const hello = await helloOf({ servername: 'a.test', ALPNProtocols: ['h2', 'http/1.1'] });
  const changed = fc
    .tuple(fc.array(fc.tuple(fc.nat(hello.length - 1), fc.nat(255)), { maxLength: 6 }), fc.nat(hello.length))
    .map(([changes, cut]) => {
      const bytes = Buffer.from(hello);
      for (const [at, value] of changes) bytes[at] = value;
      return bytes.subarray(0, cut);
    });
  fc.assert(
    fc.property(
      fc.oneof(
        changed,
        fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      ),
      (bytes) => {
        const result = readClientHello(bytes);

        expect(['more', 'other', 'malformed', 'hello']).toContain(result.kind);
        if (result.kind === 'hello')
          expect(result.serverName.length + result.applicationProtocols.join('').length).toBeLessThanOrEqual(bytes.length);
      },
    ),
    { numRuns: 5000 },
  );
});
