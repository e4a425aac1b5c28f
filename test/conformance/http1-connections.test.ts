/** What the catalogue says about connections in HTTP/1.1: pipelining, expectations, reuse, upgrades, drain. */
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Socket } from 'node:net';
import { ManualClock } from '../../lib/clock.ts';
import { localResponse } from '../../proxy/http1/error-response.ts';
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

describe('messages one after the other', () => {
  test('case 20: bytes after a message with Connection: close are dropped', async () => {
    await start();

    const { text, closed } = await talk(proxy.port, [`${getPath('/a', 'Connection: close\r\n')}${getPath('/b')}`]);

    expect(statuses(text)).toEqual([200]);
    expect(text).toContain('Connection: close\r\n');
    expect(closed).toBe(true);
    expect(upstream.requests).toHaveLength(1);
  });

  test('case 21: a thousand pipelined requests are answered in order, one upstream at a time', async () => {
    await start();
    const all = Array.from({ length: 1_000 }, (_, i) => getPath(`/${i}`)).join('');

    const { text } = await talk(proxy.port, [all], { until: (so) => so.endsWith('/999'), withinMs: 5_000 });

    expect([...text.matchAll(/\r\n\r\n\/(\d+)/g)].map((match) => Number(match[1]))).toEqual(Array.from({ length: 1_000 }, (_, i) => i));
    expect(upstream.connections).toBe(1);
  });

  test('case 21: thousands of pipelined requests that need no upstream are answered in order', async () => {
    await start({ send: (request, reply) => reply.answered(localResponse(request, 200, request.path)) });
    const count = 5_000;

    const { text } = await talk(proxy.port, [Array.from({ length: count }, (_, i) => getPath(`/${i}`)).join('')], {
      until: (so) => so.endsWith(`/${count - 1}`),
      withinMs: 10_000,
    });

    expect([...text.matchAll(/\r\n\r\n\/(\d+)/g)].map((match) => Number(match[1]))).toEqual(Array.from({ length: count }, (_, i) => i));
    expect(upstream.requests).toHaveLength(0);
  });

  test('case 21: what is sent ahead of a slow answer is bounded', async () => {
    await start({}, () => undefined);
    const client = new Client(proxy.port);
    client.write(getPath('/slow'));
    const block = getPath(`/${'x'.repeat(1_000)}`).repeat(64);

    for (let i = 0; i < 300; i++) client.write(block);
    await until('the first request is under way', () => upstream.requests.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 200));

    // Most of the 20 MB still waits with the client.
    expect(client.socket.writableLength).toBeGreaterThan(8_000_000);
    expect(upstream.requests).toHaveLength(1);
  });

  test('case 21: answers that the client does not take are not piled up', async () => {
    await start({}, () => `HTTP/1.1 200 OK\r\nContent-Length: 8000\r\n\r\n${'x'.repeat(8_000)}`);
    const client = new Client(proxy.port);
    client.socket.pause();

    client.write(getPath('/').repeat(8_000));
    // 64 MB of answers, of which the kernel's buffers at both ends take a few.
    let before = -1;
    while (before !== upstream.requests.length) {
      before = upstream.requests.length;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }

    expect(before).toBeLessThan(4_000);
    client.socket.resume();
    await until('all are answered', () => upstream.requests.length === 8_000, 20_000);
  });

  test('case 21: a bad second request does not touch the first answer', async () => {
    await start();

    const { text, closed } = await talk(proxy.port, [`${getPath('/first')}GET / HTTP/9.9\r\n\r\n`]);

    expect(statuses(text)).toEqual([200, 505]);
    expect(text).toContain('\r\n\r\n/firstHTTP/1.1 505');
    expect(closed).toBe(true);
  });

  test('all pipelined requests are answered to a client that has ended its side', async () => {
    await start();

    const { text, closed } = await talk(proxy.port, [getPath('/a') + getPath('/b') + getPath('/c')], { end: true });

    expect(statuses(text)).toEqual([200, 200, 200]);
    expect(text).toContain('Connection: close\r\n');
    expect(closed).toBe(true);
  });

  test('max requests per connection ends it on both sides', async () => {
    await start({ settings: { maxRequestsPerConnection: 2 }, pool: { client: { maxRequestsPerConnection: 1 } } });

    const { text, closed } = await talk(proxy.port, [getPath('/a') + getPath('/b') + getPath('/c')]);

    expect(statuses(text)).toEqual([200, 200]);
    expect(closed).toBe(true);
    expect(upstream.connections).toBe(2);
    expect(upstream.bytes).toContain('Connection: close\r\n');
  });

  test('HTTP/1.0 keep-alive is kept where both sides can', async () => {
    await start();

    const { text } = await talk(proxy.port, [
      'GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\nHost: a\r\n\r\n',
    ]);

    expect(text).toBe(
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n/aHTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/b',
    );
  });
});

describe('Expect: 100-continue', () => {
  const POST = 'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n';

  test('case 10: it is answered here, and the upstream never sees it', async () => {
    await start();
    const client = new Client(proxy.port);
    client.write(POST);
    await until('it may go on', () => client.text === 'HTTP/1.1 100 Continue\r\n\r\n');
    client.write('hello');
    await until('it is answered', () => client.text.endsWith('\r\n\r\n/'));

    expect(upstream.bytes).toBe('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello');
  });

  test('case 10: where the upstream decides, its 100 goes on', async () => {
    await start({ settings: { proxy100Continue: true } });
    upstream.sockets.clear();
    const deciding = await listen((socket) => {
      let text = '';
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (text.endsWith('\r\n\r\n')) socket.write('HTTP/1.1 100 Continue\r\n\r\n');
        if (text.endsWith('hello')) socket.write(HI);
      });
    });
    await proxy.close();
    proxy = await startProxy(deciding.port, { settings: { proxy100Continue: true } });
    const client = new Client(proxy.port);
    client.write(POST);
    await until('it may go on', () => client.text === 'HTTP/1.1 100 Continue\r\n\r\n');
    client.write('hello');
    await until('it is answered', () => client.text.endsWith('hi'));

    expect(statuses(client.text)).toEqual([100, 200]);
    await deciding.close();
  });

  test('case 10: a final status before 100 ends the upstream connection', async () => {
    await start({ settings: { proxy100Continue: true } });
    const refusing = await listen((socket) => void socket.once('data', () => socket.write('HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n')));
    await proxy.close();
    proxy = await startProxy(refusing.port, { settings: { proxy100Continue: true } });

    const { text, closed } = await talk(proxy.port, [POST]);

    expect(statuses(text)).toEqual([417]);
    expect(closed).toBe(true);
    expect(proxy.pool.idle).toBe(0);
    await refusing.close();
  });
});

describe('reuse of upstream connections', () => {
  /** Closes each connection as soon as it gets a second request, without an answer. */
  function racing(): Answer {
    const seen = new WeakSet<Socket>();
    return (_request, socket) => {
      if (seen.has(socket)) {
        socket.destroy();
        return undefined;
      }
      seen.add(socket);
      return HI;
    };
  }

  test('case 49: a GET on a connection that was closed meanwhile is sent once more on a fresh one', async () => {
    await start({}, racing());

    const { text } = await talk(proxy.port, [getPath('/a') + getPath('/b')], {
      until: (so) => statuses(so).length === 2 && so.endsWith('hi'),
    });

    expect(statuses(text)).toEqual([200, 200]);
    expect(upstream.connections).toBe(2);
  });

  test('case 49 and T9: a POST is not sent twice', async () => {
    await start({}, racing());

    const { text } = await talk(proxy.port, [`${getPath('/a')}POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx`], {
      until: (so) => statuses(so).length === 2 && so.endsWith('\n'),
    });

    expect(statuses(text)).toEqual([200, 503]);
    expect(upstream.requests.filter((request) => request.head.startsWith('POST'))).toHaveLength(1);
  });

  test('case 49: a first request on a fresh connection is not sent twice either', async () => {
    await start({}, (_request, socket) => void socket.destroy() as undefined);

    const { text } = await talk(proxy.port, [getPath('/a')], { until: (so) => so.endsWith('\n') });

    expect(statuses(text)).toEqual([503]);
    expect(upstream.requests).toHaveLength(1);
  });

  test('case 49: idle connections are closed before the peer would, as its Keep-Alive says', async () => {
    const clock = new ManualClock();
    await start({ clock }, (request) =>
      request.head.startsWith('GET /long') ? 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=20\r\nContent-Length: 2\r\n\r\nhi' : HI,
    );
    await talk(proxy.port, [getPath('/')], { until: (so) => so.endsWith('hi') });
    expect(proxy.pool.idle).toBe(1);
    clock.advance(2_400);
    expect(proxy.pool.idle).toBe(1);
    clock.advance(800);
    expect(proxy.pool.idle).toBe(0);

    await talk(proxy.port, [getPath('/long')], { until: (so) => so.endsWith('hi') });
    clock.advance(18_000);
    expect(proxy.pool.idle).toBe(1);
    clock.advance(1_400);
    expect(proxy.pool.idle).toBe(0);
  });
});

describe('upgrades and tunnels', () => {
  const UPGRADE = 'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';

  /** Switches to an echo. */
  const echo: Answer = (_request, socket) => {
    socket.removeAllListeners('data');
    socket.on('data', (chunk: Buffer) => void socket.write(chunk));
    return 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst';
  };

  test('case 54: after 101 bytes go both ways, and those sent before it were held', async () => {
    await start({ settings: { upgradeTypes: ['websocket'] } }, echo);
    const client = new Client(proxy.port);
    client.write(`${UPGRADE}early`);
    await until('it is echoed', () => client.text.endsWith('firstearly'));
    client.write('GET / HTTP/1.1\r\n\r\n');
    await until('raw bytes pass', () => client.text.endsWith('earlyGET / HTTP/1.1\r\n\r\n'));

    expect(statuses(client.text)).toEqual([101]);
    expect(upstream.bytes).toBe('GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    client.socket.end();
    await until('both sides are over', () => upstream.sockets.size === 0 && proxy.served.size === 0);
    expect(proxy.pool.active).toBe(0);
  });

  test('case 54: a tunnel without traffic ends after the idle time-out', async () => {
    const clock = new ManualClock();
    await start({ clock, settings: { upgradeTypes: ['websocket'], streamIdleTimeoutMs: 10_000 } }, echo);
    const client = new Client(proxy.port);
    client.write(UPGRADE);
    await until('it is open', () => client.text.endsWith('first'));

    clock.advance(9_000);
    client.write('x');
    await until('it is echoed', () => client.text.endsWith('firstx'));
    clock.advance(9_000);
    client.write('y');
    await until('it is echoed', () => client.text.endsWith('firstxy'));
    clock.advance(11_000);
    await until('it is closed', () => client.closed && upstream.sockets.size === 0);
  });

  test('case 54: a tunnel’s writer is held while its reader stands still', async () => {
    await start({ settings: { upgradeTypes: ['websocket'] } }, (_request, socket) => {
      socket.removeAllListeners('data');
      socket.pause();
      return 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
    });
    const client = new Client(proxy.port);
    client.write(UPGRADE);
    await until('it is open', () => client.text.endsWith('\r\n\r\n'));

    const before = process.memoryUsage().rss;
    for (let i = 0; i < 800; i++) client.socket.write(Buffer.alloc(65_536));
    await new Promise((resolve) => setTimeout(resolve, 200));

    // What neither kernel took waits with the client, which this process holds too; the proxy holds next to nothing of the 50 MiB.
    expect(client.socket.writableLength).toBeGreaterThan(30_000_000);
    expect(process.memoryUsage().rss - before).toBeLessThan(100_000_000);
  });

  test('CONNECT joins raw connections where it is allowed', async () => {
    await start({ settings: { upgradeTypes: ['connect'] } }, (_request, socket) => {
      socket.removeAllListeners('data');
      socket.on('data', (chunk: Buffer) => void socket.write(chunk));
      return 'HTTP/1.1 200 Connected\r\n\r\n';
    });
    const client = new Client(proxy.port);
    client.write('CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n');
    await until('it is open', () => client.text === 'HTTP/1.1 200 Connected\r\n\r\n');
    client.write('\x16\x03\x01');
    await until('raw bytes pass', () => client.text.endsWith('\x16\x03\x01'));

    expect(upstream.bytes).toBe('CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n');
  });
});

describe('drain (L2)', () => {
  test('the next answer says close, and nothing under way is cut', async () => {
    let answer: (() => void) | undefined;
    await start({}, (request, socket) => {
      if (!request.head.startsWith('GET /slow')) return HI;
      answer = () => socket.write(HI);
      return undefined;
    });
    const client = new Client(proxy.port);
    client.write(getPath('/a'));
    await until('it is answered', () => client.text.endsWith('hi'));
    client.write(getPath('/slow'));
    await until('it is under way', () => answer !== undefined);

    for (const served of proxy.served) served.drain();
    answer!();
    await until('it is closed', () => client.closed);

    expect(client.text).toBe(`${HI}HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi`);
  });

  test('an idle connection is closed after the drain time-out', async () => {
    const clock = new ManualClock();
    await start({ clock });
    const client = new Client(proxy.port);
    client.write(getPath('/a'));
    await until('it is answered', () => client.text.endsWith('/a'));

    for (const served of proxy.served) served.drain();
    clock.advance(4_000);
    expect(proxy.served.size).toBe(1);
    clock.advance(1_400);
    await until('it is closed', () => client.closed);
  });

  test('a draining pool refuses, and closes what is idle', async () => {
    await start();
    await talk(proxy.port, [getPath('/a')], { until: (so) => so.endsWith('/a') });
    proxy.pool.drain();
    expect(proxy.pool.idle).toBe(0);

    const { text } = await talk(proxy.port, [getPath('/b')], { until: (so) => so.endsWith('\n') });

    expect(statuses(text)).toEqual([503]);
  });
});
