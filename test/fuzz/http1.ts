/** Fuzz target of the HTTP/1.1 codec: mutated messages through every reader, with oracles beyond "does not crash". Run: `npm run fuzz -- --executions=10000000 --seed=1`, with `--coverage=1` for how much of the codec it reaches. */
import { Session } from 'node:inspector';
import { Socket } from 'node:net';
import { pathToFileURL } from 'node:url';
import { below, seededRandom } from '../../lib/random.ts';
import type { Random } from '../../lib/random.ts';
import { ProxyError } from '../../proxy/errors.ts';
import { Headers } from '../../proxy/headers.ts';
import { BodyReader } from '../../proxy/http1/body-reader.ts';
import { ChunkedDecoder } from '../../proxy/http1/chunked.ts';
import { checkPartialHead, newRequestHead, newResponseHead, readRequestHead, readResponseHead } from '../../proxy/http1/head.ts';
import { normalisedPath } from '../../proxy/http1/path.ts';
import { expectsContinue, newRequest } from '../../proxy/http1/request.ts';
import { DEFAULT_SETTINGS } from '../../proxy/http1/settings.ts';
import type { Http1Settings } from '../../proxy/http1/settings.ts';
import { requestHead } from '../../proxy/http1/write.ts';
import type { DownstreamConnection } from '../../proxy/service.ts';
import { CHUNK_SEEDS, DICTIONARY, PATH_SEEDS, REQUEST_SEEDS, RESPONSE_SEEDS } from './http1-seeds.ts';

export interface FuzzOptions {
  readonly executions: number;
  readonly seed: number;
  /** CPU time that one input may take. */
  readonly inputMsMax: number;
  /** Called every 100,000 executions. */
  readonly progress?: (done: number, report: FuzzReport) => void;
}

export interface FuzzReport {
  executions: number;
  accepted: number;
  refused: number;
  /** Different reasons for a refusal, by target. */
  reasons: number;
  /** The slowest input that stayed the slowest when it was run again. */
  slowestMs: number;
  slowestInput: string;
  /** What went wrong, with the input; empty is the aim. */
  readonly findings: string[];
}

const SETTINGS: Http1Settings = { ...DEFAULT_SETTINGS, upgradeTypes: ['websocket', 'connect'], defaultHostForHttp10: 'fallback' };
const CONNECTION: DownstreamConnection = {
  id: 1,
  remoteAddress: '127.0.0.1',
  remotePort: 1,
  localAddress: '127.0.0.1',
  localPort: 2,
  listener: 'fuzz',
  protocol: 'HTTP/1.1',
  tls: undefined,
};
const SOURCE = {
  socket: new Socket(),
  bodyWanted: () => undefined,
  holdReading: () => undefined,
  resumeReading: () => undefined,
  bodyCancelled: () => undefined,
};
const CHUNK_LIMITS = { extensionBytesMax: 16_384, trailerBytesMax: 61_440, trailerFieldsMax: 100 };
const FINDINGS_MAX = 20;
const REASONS_MAX = 2_000;

/** A target takes an input; answers whether the codec accepted it; throws `ProxyError` for a refusal and anything else for a finding. */
type Target = (input: string, random: Random) => boolean;

const head = newRequestHead();
const again = newRequestHead();
const responseHead = newResponseHead();
const reader = new BodyReader(SOURCE, SETTINGS);

/** Head, request, body; and what would be written must read as the same request again. */
const request: Target = (input) => {
  const at = input.startsWith('\r\n') ? 2 : 0;
  const end = input.indexOf('\r\n\r\n', at);
  if (end === -1 || end > SETTINGS.headBytesMax) {
    checkPartialHead(input.slice(0, SETTINGS.headBytesMax + 4), at, 0, SETTINGS);
    return false;
  }
  const bytes = Buffer.from(input, 'latin1');
  readRequestHead(input, bytes, 0, at, end, SETTINGS, head);
  expectsContinue(head, SETTINGS);
  const made = newRequest(head, CONNECTION, SETTINGS, 0);
  if (head.chunked) made.body = reader.beginChunked(bytes, end + 4);
  else if (head.contentLength > 0) made.body = reader.beginLength(head.contentLength, bytes, end + 4);
  const written = requestHead(made, true);
  const stop = written.indexOf('\r\n\r\n');
  if (stop !== written.length - 4) throw new Error(`the written head ends early: ${JSON.stringify(written)}`);
  readRequestHead(written, Buffer.from(written, 'latin1'), 0, 0, stop, SETTINGS, again);
  const repeated = newRequest(again, CONNECTION, SETTINGS, 0);
  if (
    repeated.path !== made.path ||
    repeated.authority !== made.authority ||
    repeated.method !== made.method ||
    repeated.upgrade !== made.upgrade
  )
    throw new Error(`the written head means something else: ${JSON.stringify(written)}`);
  if (repeated.headers.fields.join('\n') !== made.headers.fields.join('\n'))
    throw new Error(`the written fields differ: ${JSON.stringify(written)}`);
  return true;
};

const response: Target = (input) => {
  const end = input.indexOf('\r\n\r\n');
  if (end === -1) return false;
  readResponseHead(input, Buffer.from(input, 'latin1'), 0, 0, end, SETTINGS, responseHead);
  if (!(responseHead.status >= 100 && responseHead.status <= 999)) throw new Error(`status ${responseHead.status}`);
  return true;
};

/** However it is cut, a chunked body is the same bytes, or refused. */
const chunks: Target = (input, random) => {
  const whole = decode(input, [input.length]);
  const cuts: number[] = [];
  for (let at = 0; at < input.length;) {
    // Many small cuts at first; a long input in a hundred thousand reads would measure this harness.
    at = cuts.length < 100 ? Math.min(input.length, at + 1 + below(random, 9)) : input.length;
    cuts.push(at);
  }
  const parts = decode(input, cuts);
  if (whole !== parts) throw new Error(`cut at ${cuts.join(',')} it is ${parts}, whole it is ${whole}`);
  if (whole.startsWith('refused')) throw new ProxyError('badRequest', whole);
  return whole.startsWith('done');
};

function decode(input: string, cuts: readonly number[]): string {
  const decoder = new ChunkedDecoder(CHUNK_LIMITS);
  let content = '';
  let from = 0;
  try {
    for (const cut of cuts) {
      const taken = decoder.decode(Buffer.from(input.slice(from, cut), 'latin1'), 0, (run) => (content += run.toString('latin1')));
      if (decoder.done) return `done at ${from + taken}: ${JSON.stringify(content)} ${decoder.trailers?.fields.join('|') ?? ''}`;
      from = cut;
    }
    return `open: ${JSON.stringify(content)}`;
  } catch (error) {
    if (error instanceof ProxyError) return 'refused';
    throw error;
  }
}

/** Normalising twice is normalising once. */
const path: Target = (input) => {
  // Longer targets are refused before this.
  const clean = `/${input.replaceAll(/[^!-"$-[\]-~]/g, '').slice(0, SETTINGS.uriBytesMax)}`;
  const once = normalisedPath(clean, SETTINGS);
  if (/(^|\/)\.\.?(\/|$)/.test(once.split('?')[0]!) || once.split('?')[0]!.includes('//')) throw new Error(`not normal: ${once}`);
  if (normalisedPath(once, SETTINGS) !== once && !once.includes('%25'))
    throw new Error(`not stable: ${once} -> ${normalisedPath(once, SETTINGS)}`);
  return true;
};

const TARGETS: readonly { readonly name: string; readonly run: Target; readonly seeds: readonly string[] }[] = [
  { name: 'request', run: request, seeds: REQUEST_SEEDS },
  { name: 'response', run: response, seeds: RESPONSE_SEEDS },
  { name: 'chunks', run: chunks, seeds: CHUNK_SEEDS },
  { name: 'path', run: path, seeds: PATH_SEEDS },
];

const INPUT_BYTES_MAX = 70_000;

function mutate(input: string, seeds: readonly string[], random: Random): string {
  for (let i = 1 + below(random, 4); i > 0; i--) {
    const at = below(random, input.length + 1);
    const to = Math.min(input.length, at + below(random, 12));
    const kind = below(random, 64);
    if (kind < 16) input = input.slice(0, at) + DICTIONARY[below(random, DICTIONARY.length)]! + input.slice(at);
    else if (kind < 26) input = input.slice(0, at) + DICTIONARY[below(random, DICTIONARY.length)]! + input.slice(to);
    else if (kind < 38) input = input.slice(0, at) + String.fromCharCode(below(random, 256)) + input.slice(at + 1);
    else if (kind < 48) input = input.slice(0, at) + input.slice(to);
    else if (kind < 56) input = input.slice(0, at) + input.slice(at, to) + input.slice(at);
    else if (kind < 63) input = input.slice(0, at) + seeds[below(random, seeds.length)]!.slice(below(random, 20));
    // Rarely something large: that is where quadratic costs show.
    else input = input.slice(0, at) + (input.slice(at, to) || 'a').repeat(1 + below(random, 3_000)) + input.slice(at);
  }
  return input.length > INPUT_BYTES_MAX ? input.slice(0, INPUT_BYTES_MAX) : input;
}

/** Runs one input; answers what is wrong with it, or undefined. */
function execute(run: Target, input: string, random: Random, report: FuzzReport): string | undefined {
  lastReason = '';
  try {
    if (run(input, random)) report.accepted++;
    return undefined;
  } catch (error) {
    if (!(error instanceof ProxyError)) return error instanceof Error ? (error.stack ?? error.message) : String(error);
    if (error.code === 'internal') return `internal: ${error.message}`;
    report.refused++;
    lastReason = error.message.replace(/(field) \S+ /i, '$1 ');
    return undefined;
  }
}

/** Why the codec refused what was executed last; empty when it did not. */
let lastReason = '';

/** The least time of some runs: a pause of the machine is not the input's fault. */
function timeAgain(run: Target, input: string): number {
  let least = Number.POSITIVE_INFINITY;
  const scratch = emptyReport();
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    execute(run, input, seededRandom(i), scratch);
    least = Math.min(least, performance.now() - started);
  }
  return least;
}

function emptyReport(): FuzzReport {
  return { executions: 0, accepted: 0, refused: 0, reasons: 0, slowestMs: 0, slowestInput: '', findings: [] };
}

export function fuzzHttp1(options: FuzzOptions): FuzzReport {
  const random = seededRandom(options.seed);
  const report = emptyReport();
  const corpora = TARGETS.map(({ seeds }) => seeds.slice());
  const reasons = new Set<string>();
  for (let i = 0; i < options.executions && report.findings.length < FINDINGS_MAX; i++) {
    const which = i % TARGETS.length;
    const { name, run, seeds } = TARGETS[which]!;
    const corpus = corpora[which]!;
    const input = mutate(corpus[below(random, corpus.length)]!, seeds, random);
    const before = report.accepted;
    const started = performance.now();
    const wrong = execute(run, input, random, report);
    const spentMs = performance.now() - started;
    report.executions++;
    const reason = `${name}: ${lastReason}`;
    // A refusal that was not seen before is a new place in the code.
    const isNew = lastReason !== '' && reasons.size < REASONS_MAX && !reasons.has(reason);
    if (isNew) reasons.add(reason);
    // What was accepted is worth bending further, and so is what got to a new place.
    if (input.length < 2_000 && (isNew || (report.accepted > before && random() < 0.02))) {
      if (corpus.length < 400) corpus.push(input);
      else corpus[seeds.length + below(random, corpus.length - seeds.length)] = input;
    }
    if (wrong !== undefined) report.findings.push(`${name} ${JSON.stringify(input.slice(0, 2_000))}: ${wrong}`);
    if (spentMs > report.slowestMs) {
      const leastMs = timeAgain(run, input);
      if (leastMs > report.slowestMs) {
        report.slowestMs = leastMs;
        report.slowestInput = `${name} (${input.length} bytes) ${JSON.stringify(input.slice(0, 200))}`;
      }
      if (leastMs > options.inputMsMax)
        report.findings.push(`${name} took ${leastMs.toFixed(1)} ms: ${JSON.stringify(input.slice(0, 2_000))}`);
    }
    if ((i + 1) % 100_000 === 0) options.progress?.(i + 1, report);
  }
  report.reasons = reasons.size;
  // Nothing of a stranger's may have reached what all objects share.
  if (Object.keys(Object.prototype).length > 0 || new Headers().size !== 0) report.findings.push('a prototype was polluted');
  return report;
}

const FILES = ['head', 'fields', 'chunked', 'path', 'request', 'chars'] as const;

/** Per file of the codec, how many of its blocks ran, by V8's own count. */
function blocksOf(session: Session): Promise<Record<string, string>> {
  return new Promise((resolve, reject) => {
    session.post('Profiler.takePreciseCoverage', (error, taken) => {
      if (error !== null) return reject(error);
      const found: Record<string, string> = {};
      for (const { url, functions } of taken.result) {
        const name = FILES.find((file) => url.endsWith(`/proxy/http1/${file}.ts`));
        if (name === undefined) continue;
        const blocks = functions.flatMap(({ ranges }) => ranges);
        found[name] = `${blocks.filter(({ count }) => count > 0).length} of ${blocks.length}`;
      }
      return resolve(found);
    });
  });
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const flag = (name: string, fallback: number): number =>
    Number(process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3) ?? fallback);
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  // Counts make the code slower: asked for with --coverage=1.
  const coverage = flag('coverage', 0) === 1;
  if (coverage) session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  const report = fuzzHttp1({
    executions: flag('executions', 10_000_000),
    seed: flag('seed', 1),
    inputMsMax: 5,
    progress: (done, { accepted, refused, slowestMs }) =>
      void (
        done % 1_000_000 === 0 &&
        process.stderr.write(`${done}: ${accepted} accepted, ${refused} refused, slowest ${slowestMs.toFixed(2)} ms\n`)
      ),
  });
  process.stdout.write(`${JSON.stringify(coverage ? { ...report, blocks: await blocksOf(session) } : report, undefined, 2)}\n`);
  session.disconnect();
  process.exitCode = report.findings.length === 0 ? 0 : 1;
}
