/** Load generators: wrk for saturation, fortio for a fixed rate; both outside this process and on the load's core. */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const TOOLS_DIRECTORY = new URL('../build/bench/', import.meta.url).pathname;

export interface LoadResult {
  readonly requests: number;
  readonly failed: number;
  readonly seconds: number;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
}

export interface LoadOptions {
  readonly url: string;
  readonly core: number;
  readonly connections: number;
  readonly seconds: number;
  readonly method?: 'GET' | 'POST';
  readonly bodyBytes?: number;
  readonly closeEach?: boolean;
}

function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(command, [...args], { maxBuffer: 64 * 2 ** 20 }, (error, stdout, stderr) =>
      error === null ? resolve(stdout) : reject(new Error(`${command}: ${error.message}\n${stderr}`)),
    );
  });
}

/** wrk's summary, printed by its own script hook as one JSON line. */
const WRK_DONE = `
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"durationUs":%d,"bytes":%d,"errors":%d,"p50":%f,"p99":%f,"p999":%f}\\n', summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
`;

/** As many requests as the connections carry. */
export async function saturate(options: LoadOptions): Promise<LoadResult> {
  mkdirSync(TOOLS_DIRECTORY, { recursive: true });
  const script = join(
    TOOLS_DIRECTORY,
    `wrk-${options.method ?? 'GET'}-${options.bodyBytes ?? 0}${options.closeEach === true ? '-close' : ''}.lua`,
  );
  const lines = [`wrk.method = "${options.method ?? 'GET'}"`];
  if (options.bodyBytes !== undefined) lines.push(`wrk.body = string.rep("x", ${options.bodyBytes})`);
  if (options.closeEach === true) lines.push('wrk.headers["Connection"] = "close"');
  writeFileSync(script, lines.join('\n') + WRK_DONE);
  const out = await run('taskset', [
    '-c',
    String(options.core),
    'wrk',
    '-t1',
    `-c${options.connections}`,
    `-d${options.seconds}s`,
    '--timeout',
    '10s',
    '-s',
    script,
    options.url,
  ]);
  const line = out.split('\n').find((text) => text.startsWith('{"requests"'));
  if (line === undefined) throw new Error(`wrk printed no summary:\n${out}`);
  const summary = JSON.parse(line) as {
    requests: number;
    durationUs: number;
    bytes: number;
    errors: number;
    p50: number;
    p99: number;
    p999: number;
  };
  const seconds = summary.durationUs / 1e6;
  return {
    requests: summary.requests,
    failed: summary.errors,
    seconds,
    requestsPerSecond: summary.requests / seconds,
    bytesPerSecond: summary.bytes / seconds,
    p50Ms: summary.p50 / 1000,
    p99Ms: summary.p99 / 1000,
    p999Ms: summary.p999 / 1000,
  };
}

/** Where fortio is, installing it with Go when that is at hand; undefined when there is no way. */
export function findFortio(): string | undefined {
  const own = join(TOOLS_DIRECTORY, 'fortio');
  for (const candidate of [process.env['FORTIO'], own, 'fortio']) {
    if (candidate === undefined) continue;
    try {
      execFileSync(candidate, ['version'], { stdio: 'pipe' });
      return candidate;
    } catch {
      continue; // Not there; the next place is tried.
    }
  }
  try {
    mkdirSync(TOOLS_DIRECTORY, { recursive: true });
    execFileSync('go', ['install', 'fortio.org/fortio@v1.66.2'], {
      env: { ...process.env, GOBIN: TOOLS_DIRECTORY },
      stdio: 'pipe',
      timeout: 300_000,
    });
  } catch {
    return undefined;
  }
  return existsSync(own) ? own : undefined;
}

interface FortioReport {
  readonly ActualQPS: number;
  readonly ActualDuration: number;
  readonly RetCodes: Readonly<Record<string, number>>;
  readonly BytesReceived?: number;
  readonly DurationHistogram: {
    readonly Count: number;
    readonly Percentiles: readonly { readonly Percentile: number; readonly Value: number }[];
  };
}

/** A fixed rate, spread over the connections; latency counts from when a request was due where the tool can tell. */
export async function atRate(fortio: string, options: LoadOptions & { readonly requestsPerSecond: number }): Promise<LoadResult> {
  const args = [
    'load',
    '-quiet',
    '-json',
    '-',
    '-qps',
    String(Math.round(options.requestsPerSecond)),
    '-c',
    String(options.connections),
    '-t',
    `${options.seconds}s`,
    '-p',
    '50,99,99.9',
    '-r',
    '0.00005',
    '-uniform',
    '-nocatchup',
    options.url,
  ];
  const out = await run('taskset', ['-c', String(options.core), fortio, ...args]);
  const report = JSON.parse(out.slice(out.indexOf('{'))) as FortioReport;
  const percentile = (wanted: number): number =>
    (report.DurationHistogram.Percentiles.find((entry) => entry.Percentile === wanted)?.Value ?? 0) * 1000;
  const seconds = report.ActualDuration / 1e9;
  return {
    requests: report.DurationHistogram.Count,
    failed: report.DurationHistogram.Count - (report.RetCodes['200'] ?? 0),
    seconds,
    requestsPerSecond: report.ActualQPS,
    bytesPerSecond: (report.BytesReceived ?? 0) / seconds,
    p50Ms: percentile(50),
    p99Ms: percentile(99),
    p999Ms: percentile(99.9),
  };
}
