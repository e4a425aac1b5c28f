/** Heads: what a parsed head says, beside the catalogue in test/conformance. */
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProxyError } from '../errors.ts';
import {
  checkAuthority,
  checkPartialHead,
  isPartOfHead,
  newRequestHead,
  newResponseHead,
  readRequestHead,
  readResponseHead,
} from './head.ts';
import type { RequestHead, ResponseHead } from './head.ts';
import { DEFAULT_SETTINGS } from './settings.ts';

function request(text: string): RequestHead {
  const head = newRequestHead();
  readRequestHead(text, Buffer.from(text, 'latin1'), 0, 0, text.indexOf('\r\n\r\n'), DEFAULT_SETTINGS, head);
  return head;
}

function response(text: string): ResponseHead {
  const head = newResponseHead();
  readResponseHead(text, Buffer.from(text, 'latin1'), 0, 0, text.indexOf('\r\n\r\n'), DEFAULT_SETTINGS, head);
  return head;
}

test('a request head in parts: the codec’s own fields are taken off, the others keep order and case', () => {
  const head = request('POST /a?b HTTP/1.1\r\nX-One: 1\r\nhost: A:80\r\nContent-Length: 12\r\nconnection: x, Close\r\nx-TWO:2\r\n\r\n');

  expect(head).toMatchObject({
    method: 'POST',
    path: '/a?b',
    authority: 'A:80',
    minor: 1,
    contentLength: 12,
    chunked: false,
    keepAlive: false,
  });
  expect(head.values.headers.fields).toEqual(['X-One', 'x-one', '1', 'x-TWO', 'x-two', '2']);
});

test('one object is filled anew by each head', () => {
  const head = newRequestHead();
  const first = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n\r\n';
  readRequestHead(first, Buffer.from(first), 0, 0, first.length - 4, DEFAULT_SETTINGS, head);
  const kept = head.values.headers;
  const second = 'GET / HTTP/1.0\r\nX: y\r\n\r\n';
  readRequestHead(second, Buffer.from(second), 0, 0, second.length - 4, DEFAULT_SETTINGS, head);

  expect(head).toMatchObject({ method: 'GET', authority: undefined, minor: 0, chunked: false, contentLength: -1, keepAlive: false });
  expect(head.values.upgrade).toBeUndefined();
  expect(head.values.headers).not.toBe(kept);
});

test('a response head in parts', () => {
  const head = response('HTTP/1.1 404 Not  Found\r\nServer: x\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: Chunked\r\n\r\n');

  expect(head).toMatchObject({ status: 404, reason: 'Not  Found', minor: 1, chunked: true, contentLength: -1, keepAlive: true });
  expect(head.values.keepAlive).toBe('timeout=5');
  expect(head.values.headers.fields).toEqual(['Server', 'server', 'x']);
});

test('an answer of HTTP/1.0 ends its connection unless it says otherwise', () => {
  expect(response('HTTP/1.0 200 OK\r\n\r\n').keepAlive).toBe(false);
  expect(response('HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n').keepAlive).toBe(true);
  expect(response('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n').keepAlive).toBe(false);
});

test.each(['a', 'a.b-c_d~e', '127.0.0.1:1', '[::1]', '[fe80::1]:65535', 'xn--bcher-kva.example'])('%s names a host', (authority) => {
  expect(() => checkAuthority(authority, 'Host')).not.toThrow();
});

test('an error says what is wrong, in words', () => {
  let error: unknown;
  try {
    request('GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n');
  } catch (caught) {
    error = caught;
  }

  expect(error).toBeInstanceOf(ProxyError);
  expect((error as ProxyError).message).toBe(
    'The request is not valid HTTP. A field name has a byte that is not allowed, or no colon after it.',
  );
});

test('case 28: a method of 64 bytes is one, a longer one is refused however the head was read', () => {
  expect(request(`${'M'.repeat(64)} / HTTP/1.1\r\nHost: a\r\n\r\n`).method).toHaveLength(64);
  expect(() => request(`${'M'.repeat(65)} / HTTP/1.1\r\nHost: a\r\n\r\n`)).toThrow('The method is longer than 64 bytes.');
});

test('cases 32 and 33: ten thousand tiny fields are refused in less than 5 ms, and where they are allowed the cost is linear', () => {
  const wide = { ...DEFAULT_SETTINGS, headerFieldsMax: 50_000, headBytesMax: 2_000_000 };
  const head = newRequestHead();
  const spentMs = (count: number, name: (i: number) => string, limits: typeof DEFAULT_SETTINGS): number => {
    const text = `GET / HTTP/1.1\r\nHost: a\r\n${Array.from({ length: count }, (_, i) => `${name(i)}: x\r\n`).join('')}\r\n`;
    const bytes = Buffer.from(text, 'latin1');
    // A pause of the machine is not the input's fault: the least of some runs counts.
    let leastMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 5; i++) {
      const started = performance.now();
      try {
        readRequestHead(text, bytes, 0, 0, text.length - 4, limits, head);
      } catch (error) {
        expect((error as ProxyError).code).toBe('headersTooLarge');
      }
      leastMs = Math.min(leastMs, performance.now() - started);
    }
    return leastMs;
  };
  for (const name of [() => 'a', String, (i: number) => String(1_234_567 + i)]) {
    expect(spentMs(10_000, name, DEFAULT_SETTINGS)).toBeLessThan(5);

    const once = spentMs(10_000, name, wide);
    expect(head.values.headers.fields).toHaveLength(30_000);
    expect(spentMs(40_000, name, wide)).toBeLessThan(8 * once + 5);
  }
});

test('what the cheap look takes for a part of a head ends none, and the full check lets it pass too', () => {
  const limits = { ...DEFAULT_SETTINGS, uriBytesMax: 60, headBytesMax: 120 };
  const piece = fc.constantFrom('\r', '\n', '\r\n', 'GET / HTTP/1.1\r\n', 'a: b\r\n', 'x', '\0', 'long'.repeat(10));
  let taken = 0;
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 12 }), fc.nat(), (pieces, seed) => {
      const text = pieces.join('');
      const at = text.startsWith('\r\n') ? 2 : 0;
      const searched = seed % text.length;
      const before = text.slice(0, searched);
      // The precondition: what was there before is a part of a head.
      if (before.includes('\r\n\r\n', at) || (before.length > 1 && before.startsWith('\r\n') !== (at === 2))) return;
      try {
        checkPartialHead(before, Math.min(at, before.length), 0, limits);
      } catch {
        return;
      }
      if (!isPartOfHead(Buffer.from(text, 'latin1'), searched, text.length, limits)) return;
      taken++;
      expect(text.indexOf('\r\n\r\n', at)).toBe(-1);
      expect(() => checkPartialHead(text, at, searched, limits)).not.toThrow();
    }),
    { numRuns: 20_000, seed: 3 },
  );
  expect(taken).toBeGreaterThan(500);
});
