/** Differential test: whatever is forwarded of seeded variants is understood in the same way by other people's parsers. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import type { ProxyRequest } from '../../proxy/service.ts';
import { startProxy, startUpstream, talk } from './harness.ts';
import type { Proxy, Upstream } from './harness.ts';
import { variant } from './http1-variants.ts';
import { PARSERS, comparable, understood } from './parsers.ts';
import type { Parser, Understood } from './parsers.ts';

const VARIANTS = Number(process.env['DIFFERENTIAL_VARIANTS'] ?? 6_000);
const SEED = Number(process.env['DIFFERENTIAL_SEED'] ?? 1);
const PARSERS_NEEDED = 4;
const PROBE = 'GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n';

/** Goes behind what was forwarded: whoever reads the end of a message elsewhere reads this wrongly. */
const LAST = 'GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n';
const LAST_UNDERSTOOD: Understood = { method: 'GET', target: '/last', host: 'last', fields: [], body: '', trailers: [] };

/** What one parser said to the whole corpus. */
interface Verdict {
  agreed: number;
  readonly disagreements: string[];
}

let upstream: Upstream;
let proxy: Proxy;
const parsers: Parser[] = [];
const verdicts = new Map<string, Verdict>();
let forwarded = 0;
let probed = 0;

const tools = Object.entries(PARSERS).map(([name, tool]) => ({ name, tool, installed: tool.installed() }));

beforeAll(async () => {
  upstream = await startUpstream();
  proxy = await startProxy(upstream.port);
  for (const { tool, installed, name } of tools) {
    if (installed) parsers.push(await tool.start());
    else process.stderr.write(`differential: ${name} is left out: it needs ${tool.needs}\n`);
  }
  for (const { name } of parsers) verdicts.set(name, { agreed: 0, disagreements: [] });
  const random = seededRandom(SEED);
  for (let i = 0; i < VARIANTS; i++) await oneVariant(i, variant(random));
  const agreed = Object.fromEntries(Array.from(verdicts, ([name, verdict]) => [name, verdict.agreed]));
  process.stderr.write(
    `differential: ${forwarded} of ${VARIANTS} variants of seed ${SEED} forwarded, ${probed} with the probe; agreed: ${JSON.stringify(agreed)}\n`,
  );
}, 600_000);

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

function check(name: string, i: number, sent: string, meant: readonly Understood[], read: readonly Understood[]): void {
  const [a, b] = [JSON.stringify(meant), JSON.stringify(read)];
  const verdict = verdicts.get(name)!;
  if (a === b) verdict.agreed++;
  else
    verdict.disagreements.push(
      `${name} on variant ${i}\n  sent  ${JSON.stringify(sent.slice(0, 800))}\n  meant ${a.slice(0, 800)}\n  read  ${b.slice(0, 800)}`,
    );
}

/** Sends a variant and a probe through the proxy, and what came out of it to every parser. */
async function oneVariant(i: number, bytes: string): Promise<void> {
  upstream.bytes = '';
  upstream.requests.length = proxy.requests.length = 0;
  await talk(proxy.port, [bytes + PROBE], { until: (text) => text.endsWith('\r\n\r\n/probe'), withinMs: 300, end: true });
  if (upstream.requests.length === 0) return;
  forwarded++;
  if (upstream.bytes.includes('GET /probe HTTP/1.1\r\n')) probed++;
  const complete = upstream.requests.map(({ head, body }, k) => ours(proxy.requests[k]!, understood(head, body)));
  const whole = upstream.requests.map(({ head, body }) => head + body).join('');
  // A message that broke off is cut at the upstream: nobody may take it for complete.
  const broken = upstream.bytes.length > whole.length;
  for (const parser of parsers) {
    if (complete.some((one) => parser.takes?.(one) === false)) continue;
    const expected = parser.dropsTrailers === true ? complete.map((one) => ({ ...one, trailers: [] })) : complete;
    check(parser.name, i, whole + LAST, [...expected, LAST_UNDERSTOOD], (await parser.parse(whole + LAST)).requests);
    if (broken && parser.passesOn !== true) check(parser.name, i, upstream.bytes, expected, (await parser.parse(upstream.bytes)).requests);
  }
}

for (const { name, tool, installed } of tools)
  (installed ? test : test.skip)(`${name} reads nothing else into what is forwarded (needs ${tool.needs})`, () => {
    const verdict = verdicts.get(name)!;

    expect(verdict.disagreements.slice(0, 5)).toEqual([]);
    // Methods that a parser does not take are few.
    expect(verdict.agreed).toBeGreaterThan(forwarded * 0.9);
  });

(tools.filter(({ installed }) => installed).length >= PARSERS_NEEDED ? test : test.skip)(`${PARSERS_NEEDED} parsers or more judged`, () => {
  expect(verdicts.size).toBeGreaterThanOrEqual(PARSERS_NEEDED);
});

test(`the corpus of ${VARIANTS} variants has both, what is forwarded and what is refused`, () => {
  expect(forwarded).toBeGreaterThan(VARIANTS / 4);
  expect(forwarded).toBeLessThan((VARIANTS * 9) / 10);
  expect(probed).toBeGreaterThan(VARIANTS / 4);
});
