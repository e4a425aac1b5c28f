/** Differential test: whatever is forwarded of seeded variants is understood in the same way by other people's parsers. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import type { ProxyRequest } from '../../proxy/service.ts';
import { startProxy, startUpstream, talk } from './harness.ts';
import type { Proxy, Upstream } from './harness.ts';
import { variant } from './http1-variants.ts';
import { PARSERS, comparable, understood } from './parsers.ts';
import type { Parser, Understood } from './parsers.ts';

const VARIANTS = Number(process.env['DIFFERENTIAL_VARIANTS'] ?? 2_500);
const SEED = Number(process.env['DIFFERENTIAL_SEED'] ?? 1);
const PARSERS_NEEDED = 4;
const PROBE = 'GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n';

/** Goes behind what was forwarded: whoever reads the end of a message elsewhere reads this wrongly. */
const LAST = 'GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n';
const LAST_UNDERSTOOD: Understood = { method: 'GET', target: '/last', host: 'last', fields: [], body: '', trailers: [] };

let upstream: Upstream;
let proxy: Proxy;
const parsers: Parser[] = [];

beforeAll(async () => {
  upstream = await startUpstream();
  proxy = await startProxy(upstream.port);
  for (const start of Object.values(PARSERS)) {
    const parser = await start();
    if (parser !== undefined) parsers.push(parser);
  }
}, 120_000);

afterAll(async () => {
  for (const parser of parsers) await parser.stop();
  await proxy.close();
  await upstream.close();
});

/** What our codec handed to the service, in the form that is compared; body and trailers as the upstream got them. */
function ours(request: ProxyRequest, sent: Understood): Understood {
  const pairs: [string, string][] = [];
  request.headers.forEach((name, value) => pairs.push([name, value]));
  return {
    method: request.method,
    target: request.path,
    host: request.authority,
    fields: comparable(pairs),
    body: sent.body,
    trailers: sent.trailers,
  };
}

test(`${VARIANTS} variants of seed ${SEED}: no parser reads anything else into what is forwarded`, async () => {
  const random = seededRandom(SEED);
  const disagreements: string[] = [];
  const agreed = new Map<string, number>();
  const check = (name: string, i: number, sent: string, meant: readonly Understood[], read: readonly Understood[]): void => {
    const [a, b] = [JSON.stringify(meant), JSON.stringify(read)];
    if (a === b) agreed.set(name, (agreed.get(name) ?? 0) + 1);
    else
      disagreements.push(
        `${name} on variant ${i}\n  sent  ${JSON.stringify(sent.slice(0, 800))}\n  meant ${a.slice(0, 800)}\n  read  ${b.slice(0, 800)}`,
      );
  };
  let forwarded = 0;
  let probed = 0;
  for (let i = 0; i < VARIANTS; i++) {
    const bytes = variant(random) + PROBE;
    upstream.bytes = '';
    upstream.requests.length = proxy.requests.length = 0;
    await talk(proxy.port, [bytes], { until: (text) => text.endsWith('\r\n\r\n/probe'), withinMs: 300, end: true });
    if (upstream.requests.length === 0) continue;
    forwarded++;
    if (upstream.bytes.includes('GET /probe HTTP/1.1\r\n')) probed++;
    const complete = upstream.requests.map(({ head, body }, k) => ours(proxy.requests[k]!, understood(head, body)));
    const whole = upstream.requests.map(({ head, body }) => head + body).join('');
    // A message that broke off is cut at the upstream: nobody may take it for complete.
    const broken = upstream.bytes.length > whole.length;
    for (const parser of parsers) {
      if (complete.some(({ method }) => parser.takesMethod?.(method) === false)) continue;
      const expected = parser.dropsTrailers === true ? complete.map((one) => ({ ...one, trailers: [] })) : complete;
      check(parser.name, i, whole + LAST, [...expected, LAST_UNDERSTOOD], (await parser.parse(whole + LAST)).requests);
      if (broken && parser.passesOn !== true)
        check(parser.name, i, upstream.bytes, expected, (await parser.parse(upstream.bytes)).requests);
    }
  }
  process.stderr.write(
    `differential: ${forwarded} of ${VARIANTS} variants forwarded, ${probed} with the probe; agreed: ${JSON.stringify(Object.fromEntries(agreed))}; disagreements: ${disagreements.length}\n`,
  );

  expect(disagreements.slice(0, 5)).toEqual([]);
  // The corpus must test both: refusing and forwarding.
  expect(forwarded).toBeGreaterThan(VARIANTS / 4);
  expect(forwarded).toBeLessThan((VARIANTS * 9) / 10);
  if (parsers.length < PARSERS_NEEDED)
    process.stderr.write(`differential: only ${parsers.length} parsers are installed, ${PARSERS_NEEDED} are wanted\n`);
}, 600_000);
