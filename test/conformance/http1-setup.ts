/** What suites of HTTP/1.1 set up alike: one proxy and one upstream for all tests of a file, and the messages that most of them send. */
import { afterAll, beforeAll, beforeEach } from '@jest/globals';
import { startProxy, startUpstream } from './harness.ts';
import type { Proxy, ProxyOptions, Upstream } from './harness.ts';

export interface Pair {
  readonly upstream: Upstream;
  readonly proxy: Proxy;
}

/** One pair for the whole file, with clean notes for each test. `take` gets it before the first one. */
export function onePair(options: ProxyOptions, take: (pair: Pair) => void): void {
  let pair: Pair;
  beforeAll(async () => {
    const upstream = await startUpstream();
    pair = { upstream, proxy: await startProxy(upstream.port, options) };
    take(pair);
  });
  afterAll(() => close(pair));
  beforeEach(() => {
    const { upstream, proxy } = pair;
    upstream.bytes = '';
    upstream.requests.length = proxy.requests.length = proxy.rejected.length = 0;
  });
}

async function close({ upstream, proxy }: Pair): Promise<void> {
  await proxy.close();
  await upstream.close();
}

/** A request that must not reach the upstream behind one that is refused. */
export const PROBE = 'GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n';
export const HOST = 'Host: a\r\n';
/** An answer with a body of two bytes. */
export const HI = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi';

/** A request with a body that `fields` frame, as an attacker would send it. */
export const post = (fields: string, body = ''): string => `POST / HTTP/1.1\r\n${HOST}${fields}\r\n${body}`;
export const get = (fields: string): string => `GET / HTTP/1.1\r\n${HOST}${fields}\r\n`;
export const getPath = (path: string, fields = ''): string => `GET ${path} HTTP/1.1\r\n${HOST}${fields}\r\n`;
