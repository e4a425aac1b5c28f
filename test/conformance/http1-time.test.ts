/** What the catalogue says about time in HTTP/1.1: slow peers, closes in the middle of messages, readers that stand still. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { Client, listen, startProxy, startUpstream, statuses, talk, until } from './harness.ts';
import type { Answer, Proxy, ProxyOptions, Upstream } from './harness.ts';
import { getPath, HI } from './http1-setup.ts';

let upstream: Upstream;
let proxy: Proxy;

afterEach(async () => {
  await proxy.close();
  await upstream.close();
});

async function start(options: ProxyOptions = {}, answer?: Answer): Promise<void> {
  upstream = await startUpstream(answer);
  proxy = await startProxy(upstream.port, options);
}

describe('slow peers', () => {
  test('case 41: a head that does not come is answered with 408 and closed', async () => {
    const clock = new ManualClock();
    await start({ clock });
    const client = new Client(proxy.port);
    client.write('GET / HTTP/1.1\r\nHo');
    await until('it is served', () => proxy.served.size === 1);
    await new Promise((resolve) => setTimeout(resolve, 20));

    for (let i = 0; i < 9; i++) {
      clock.advance(1_000);
      client.write('s');
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    expect(client.text).toBe('');
    clock.advance(1_400);
    await until('it is answered', () => client.closed);

    expect(statuses(client.text)).toEqual([408]);
    expect(upstream.bytes).toBe('');
    expect(proxy.rejected).toEqual(['requestHeaderTimeout']);
  });

  test('case 42: a body that comes too slowly is given up on both sides', async () => {
    const clock = new ManualClock();
    await start({ clock });
    const client = new Client(proxy.port);
    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n');
    await until('the upstream has the head', () => upstream.bytes.includes('\r\n\r\n'));

    for (let i = 0; i < 21; i++) {
      clock.advance(1_000);
      client.write('x');
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await until('it is closed', () => client.closed && upstream.sockets.size === 0);

    expect(statuses(client.text)).toEqual([408]);
    expect(upstream.requests).toEqual([]);
  });

  test('case 42: a request time-out holds for chunked bodies too', async () => {
    const clock = new ManualClock();
    await start({ clock, settings: { requestTimeoutMs: 5_000 } });
    const client = new Client(proxy.port);
    client.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n');
    await until('the upstream has the chunk', () => upstream.bytes.includes('\r\nx\r\n'));

    clock.advance(5_400);
    await until('it is closed', () => client.closed && upstream.sockets.size === 0);

    expect(statuses(client.text)).toEqual([408]);
  });

  test('case 42: a reader that stands still is cut after the stream idle time-out', async () => {
    const clock = new ManualClock();
    await start({ clock, settings: { streamIdleTimeoutMs: 60_000 } }, () =>
      Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n'), Buffer.alloc(50_000_000)]),
    );
    const client = new Client(proxy.port);
    client.write(getPath('/'));
    await until('bytes flow', () => client.text.length > 0);
    client.socket.pause();
    await new Promise((resolve) => setTimeout(resolve, 100));

    clock.advance(1_000);
    clock.advance(59_000);
    expect(proxy.served.size).toBe(1);
    clock.advance(2_000);
    await until('the upstream is released', () => upstream.sockets.size === 0);

    expect(proxy.pool.active).toBe(0);
  });

  test('case 42: an upstream that never answers ends with 504', async () => {
    const clock = new ManualClock();
    await start({ clock, settings: { streamIdleTimeoutMs: 60_000 } }, () => undefined);
    const client = new Client(proxy.port);
    client.write(getPath('/'));
    await until('the upstream has it', () => upstream.requests.length === 1);

    clock.advance(60_400);
    await until('it is answered', () => client.closed && upstream.sockets.size === 0);

    expect(statuses(client.text)).toEqual([504]);
  });

  test('case 43: a client that connects and says nothing is closed in silence', async () => {
    const clock = new ManualClock();
    await start({ clock });
    const client = new Client(proxy.port);
    await until('it is served', () => proxy.served.size === 1);

    clock.advance(10_400);
    await until('it is closed', () => client.closed);

    expect(client.text).toBe('');
  });

  test('an idle connection is closed after the idle time-out, and not before', async () => {
    const clock = new ManualClock();
    await start({ clock, settings: { idleTimeoutMs: 30_000 } });
    const client = new Client(proxy.port);
    client.write(getPath('/'));
    await until('it is answered', () => client.text.endsWith('/'));

    clock.advance(29_000);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(client.closed).toBe(false);
    clock.advance(2_000);
    await until('it is closed', () => client.closed);
  });
});

describe('closes in the middle', () => {
  test('case 44: a client that has said all still gets its answer', async () => {
    let answer: (() => void) | undefined;
    await start({}, (_request, socket) => {
      answer = () => socket.write(HI);
      return undefined;
    });
    const talked = talk(proxy.port, [getPath('/')], { end: true });
    await until('the upstream has it', () => answer !== undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
    answer!();

    const { text, closed } = await talked;

    expect(text.endsWith('\r\n\r\nhi')).toBe(true);
    expect(closed).toBe(true);
  });

  test('case 44: an end in the middle of a body cuts the upstream', async () => {
    await start();
    const client = new Client(proxy.port);
    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello');
    await until('the upstream has half', () => upstream.bytes.endsWith('hello'));

    client.socket.end();
    await until('the upstream is cut', () => upstream.sockets.size === 0);

    expect(upstream.requests).toEqual([]);
  });

  test.each(['before the answer', 'in the middle of the answer'])('case 45: a reset %s cancels the upstream', async (when) => {
    const early = when === 'before the answer';
    await start({}, () => (early ? undefined : 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello'));
    const client = new Client(proxy.port);
    client.write(getPath('/'));
    await until('it is under way', () => (early ? upstream.requests.length === 1 : client.text.endsWith('hello')));

    const started = performance.now();
    client.socket.resetAndDestroy();
    await until('the upstream is cut', () => upstream.sockets.size === 0);

    expect(performance.now() - started).toBeLessThan(100);
    expect(proxy.served.size).toBe(0);
    expect(proxy.pool.active).toBe(0);
  });

  test('case 47 and 9: an answer before the request is sent ends both connections', async () => {
    upstream = await startUpstream();
    const early = await listen((socket) => {
      socket.once('data', () => socket.write(HI));
      socket.on('end', () => socket.end());
    });
    proxy = await startProxy(early.port);
    const client = new Client(proxy.port);
    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello');
    await until('it is answered', () => client.closed);

    expect(client.text).toBe('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi');
    expect(proxy.pool.idle).toBe(0);
    await early.close();
  });

  test('case 47: a client that goes on sending gets the answer all the same', async () => {
    upstream = await startUpstream();
    const early = await listen(
      (socket) => void socket.once('data', () => socket.write('HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno')),
    );
    proxy = await startProxy(early.port);
    const parts = [
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n',
      ...Array.from({ length: 50 }, () => 'x'.repeat(65_536)),
    ];

    const { text } = await talk(proxy.port, parts, { until: (so) => so.endsWith('no') });

    expect(statuses(text)).toEqual([413]);
    await early.close();
  });
});

describe('back-pressure', () => {
  test('case 55: a slow reader holds the writer, and the proxy keeps next to nothing', async () => {
    let written = 0;
    upstream = await startUpstream();
    const source = await listen((socket) => {
      socket.once('data', () => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${1_073_741_824}\r\n\r\n`);
        const chunk = Buffer.alloc(65_536);
        const pump = (): void => {
          while (written < 1_073_741_824 && socket.write(chunk)) written += chunk.length;
        };
        socket.on('drain', pump);
        pump();
      });
    });
    proxy = await startProxy(source.port);
    const client = new Client(proxy.port);
    client.socket.removeAllListeners('data');
    client.socket.once('data', () => client.socket.pause());
    client.write(getPath('/'));
    await until('it flows', () => written > 0);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const stoodAt = written;
    await new Promise((resolve) => setTimeout(resolve, 200));

    // Kernel buffers of two hops take some MiB; then everything stands.
    expect(written).toBe(stoodAt);
    expect(written).toBeLessThan(32 * 1024 * 1024);
    await source.close();
  });

  test('case 42: a slow upstream holds the client', async () => {
    upstream = await startUpstream();
    const deaf = await listen((socket) => socket.pause());
    proxy = await startProxy(deaf.port);
    const client = new Client(proxy.port);
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${64 * 1024 * 1024}\r\n\r\n`);
    for (let i = 0; i < 1_024; i++) client.socket.write(Buffer.alloc(65_536));
    await new Promise((resolve) => setTimeout(resolve, 300));

    expect(client.socket.writableLength).toBeGreaterThan(32 * 1024 * 1024);
    await deaf.close();
  });
});
