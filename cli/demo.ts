/** `meshwork demo`: the whole mesh on this computer, real processes, no root, and nothing left behind. */
import { fileURLToPath } from 'node:url';
import { sleep, systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { createApiClient } from './client.ts';
import type { ApiClient } from './client.ts';
import { createFleet } from './demo/fleet.ts';
import type { Fleet } from './demo/fleet.ts';
import { percentileMs, splitOf, startLoad } from './demo/load.ts';
import type { Load } from './demo/load.ts';
import { INSTANCES, demoResources } from './demo/mesh.ts';
import { listProxies } from './demo/observe.ts';
import { createStory } from './demo/story.ts';
import type { StoryTeller } from './demo/story.ts';
import { startView } from './demo/view.ts';
import type { Key } from './demo/view.ts';
import { CommandError, EXIT } from './exit.ts';
import { integer, parse, verb } from './parse.ts';
import { freePorts } from './ports.ts';
import { VERSION } from './version.ts';

const APP = fileURLToPath(new URL('./demo/app.ts', import.meta.url));
const REQUESTS_PER_SECOND = 20;
const START_TIMEOUT_MS = 180_000;
const FIRST_WEIGHTS = { v1: 90, v2: 10 };
const SLOW_MS = 300;

interface Options {
  readonly headless: boolean;
  readonly json: boolean;
  readonly seconds: number;
}

interface Running {
  readonly api: ApiClient;
  readonly teller: StoryTeller;
  readonly load: Load;
}

export async function run(argv: readonly string[]): Promise<number> {
  const command = verb(
    'demo',
    'The whole mesh on this computer: a control plane, seven sidecars, three services, mTLS, 20 requests a second.',
  )
    .option('--headless', 'tell the story unattended, without keys', false)
    .option('--json', 'print one JSON object at the end', false)
    .option('--seconds <n>', 'how long the unattended story takes, start-up not counted', integer('--seconds', 10, 86_400), 20);
  const options = parse(command, argv).opts<Options>();
  const headless = options.headless || !process.stdin.isTTY || !process.stdout.isTTY;
  const clock = systemClock();
  const fleet = createFleet(clock);
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => resolve('interrupted'));
  });
  let running: Running | undefined;
  const play = async (): Promise<'done'> => {
    running = await start(clock, fleet);
    if (headless) await tellUnattended(clock, running, options.seconds * 1000);
    else await tellInteractive(clock, running);
    return 'done';
  };
  try {
    const failed = fleet.failed.then((sentence) => {
      throw new CommandError(sentence);
    });
    const end = await Promise.race([play(), interrupted, failed]);
    if (end === 'interrupted') return EXIT.interrupted;
    await running!.load.stop();
    const report = await buildReport(running!);
    process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : describe(report));
    return report.failed === 0 ? EXIT.fine : EXIT.problems;
  } finally {
    if (running !== undefined) {
      await running.load.stop();
      await running.api.close();
    }
    await fleet.stop();
  }
}

function progress(line: string): void {
  process.stderr.write(`  ${line}\n`);
}

async function start(clock: Clock, fleet: Fleet): Promise<Running> {
  const startMs = clock.now();
  const seconds = (): string => `${((clock.now() - startMs) / 1000).toFixed(1)} s`;
  progress(
    `meshwork ${VERSION} · node ${process.versions.node} · everything runs on this machine, nothing is installed, Ctrl-C removes it\n`,
  );
  const [xds, xdsTls, apiPort, metrics] = (await freePorts(4, [15010, 15012, 15080, 15014])) as [number, number, number, number];
  const controlPlane = fleet.start('control-plane', [
    ...['control-plane', '--xds', `127.0.0.1:${xds}`, '--xds-tls', `127.0.0.1:${xdsTls}`],
    ...['--api', `127.0.0.1:${apiPort}`, '--metrics', `127.0.0.1:${metrics}`, '-o', 'json'],
  ]);
  await controlPlane.firstLine;
  const api = createApiClient(`127.0.0.1:${apiPort}`);
  for (const resource of demoResources(FIRST_WEIGHTS)) await api.call('/api/v1/resources', { method: 'POST', body: resource });
  progress(`✔ control plane   API http://127.0.0.1:${apiPort}   xDS 127.0.0.1:${xdsTls}   metrics 127.0.0.1:${metrics}   ${seconds()}`);

  const ports = await freePorts(INSTANCES.length * 4);
  const instanceOf = new Map<string, string>();
  const applicationPort = new Map<string, number>();
  let loadPort = 0;
  INSTANCES.forEach((instance, index) => {
    const [application, outbound, inbound, admin] = ports.slice(index * 4, index * 4 + 4) as [number, number, number, number];
    instanceOf.set(`127.0.0.1:${inbound}`, instance.name);
    applicationPort.set(instance.name, application);
    const isLoad = instance.service === 'load';
    if (isLoad) loadPort = outbound;
    const args = [
      'run',
      '--service',
      instance.service,
      '--name',
      instance.name,
      '--version',
      instance.version,
      '--control-plane',
      api.baseUrl,
    ];
    args.push('--outbound-port', String(outbound), '--inbound-port', String(inbound), '--admin-port', String(admin));
    if (!isLoad) args.push('--port', String(application), '--', process.execPath, APP);
    const env = {
      DEMO_SERVICE: instance.service,
      DEMO_VERSION: instance.version,
      DEMO_INSTANCE: instance.name,
      DEMO_NEXT: instance.next,
      DEMO_PORT: String(application),
    };
    fleet.start(instance.name, args, env);
  });
  await untilServing(clock, api, loadPort);
  progress(`✔ ${INSTANCES.length} sidecars      web 1   reviews v1 v1 v2   ratings 2   load 1   ${seconds()}`);

  const teller = createStory({ clock, api, instanceOf, applicationPort });
  teller.story.weights = FIRST_WEIGHTS;
  const load = startLoad({ clock, outboundPort: loadPort, host: 'web', requestsPerSecond: REQUESTS_PER_SECOND });
  teller.story.outcomes = load.outcomes;
  progress(`✔ ${REQUESTS_PER_SECOND} requests/s   load → web → reviews → ratings, mTLS on every edge   ${seconds()}`);
  return { api, teller, load };
}

/** Waits until every sidecar acknowledged its configuration and a request comes through the whole chain from every entry. */
async function untilServing(clock: Clock, api: ApiClient, loadPort: number): Promise<void> {
  const untilMs = clock.now() + START_TIMEOUT_MS;
  let why = 'no sidecar connected';
  while (clock.now() < untilMs) {
    const proxies = await listProxies(api);
    const ready = proxies.filter((proxy) => proxy.connected && proxy.state === 'acked').length;
    const endpoints = (await api.call<{ endpoints: readonly { service: string; ready: boolean }[] }>('/api/v1/endpoints')).body.endpoints;
    const serving = new Set(endpoints.filter((endpoint) => endpoint.ready).map((endpoint) => endpoint.service.replace(/^.*\//, '')));
    const missing = ['web', 'reviews-v1', 'reviews-v2', 'ratings'].filter((service) => !serving.has(service));
    why = `${ready} of ${INSTANCES.length} sidecars are ready${missing.length === 0 ? '' : `; no endpoint serves ${missing.join(', ')}`}`;
    if (ready >= INSTANCES.length && missing.length === 0 && endpoints.filter((endpoint) => endpoint.ready).length >= 9) {
      const probe = startLoad({ clock, outboundPort: loadPort, host: 'web', requestsPerSecond: 1 });
      await probe.stop();
      if (probe.outcomes[0]?.ok === true) return;
      why = `the first request failed: ${probe.outcomes[0]?.error ?? 'not sent'}`;
    }
    await sleep(clock, 100);
  }
  throw new CommandError(`the mesh was not ready within ${START_TIMEOUT_MS / 1000} s: ${why}`);
}

/** The whole story in so many milliseconds: what each part takes is a share of it. */
async function tellUnattended(clock: Clock, { teller, load }: Running, totalMs: number): Promise<void> {
  const startMs = clock.now();
  const until = (share: number): Promise<void> => sleep(clock, startMs + totalMs * share - clock.now());
  const { story } = teller;
  let printed = 0;
  const watching = new AbortController();
  const watch = (async () => {
    while (!watching.signal.aborted) {
      await teller.observe();
      for (; printed < story.events.length; printed++) progress(story.events[printed]!);
      await sleep(clock, 500, watching.signal);
    }
  })();
  await until(0.15);
  await teller.toggleBroken('ratings-2');
  await until(0.45);
  await teller.rotate();
  await until(0.6);
  await teller.toggleSlow('ratings-1', SLOW_MS / 10);
  await until(0.7);
  await teller.toggleSlow('ratings-1', SLOW_MS / 10);
  // The split is counted under the one weight that stood until now.
  measured.set(teller, { outcomes: load.outcomes.slice(), weights: story.weights });
  await teller.setWeights(100, 0);
  await until(0.8);
  await teller.setWeights(50, 50);
  await until(0.9);
  await teller.setWeights(0, 100);
  await until(1);
  watching.abort();
  await watch;
  await teller.observe();
  for (; printed < story.events.length; printed++) progress(story.events[printed]!);
}

/** Outcomes under one weight, for the report's split. */
const measured = new WeakMap<StoryTeller, { outcomes: Load['outcomes']; weights: { v1: number; v2: number } }>();

async function tellInteractive(clock: Clock, { teller }: Running): Promise<void> {
  const { story } = teller;
  const canary = [0, 10, 50, 100];
  let busy: Promise<unknown> = Promise.resolve();
  await new Promise<void>((resolve, reject) => {
    const act = (what: () => Promise<unknown>): void => {
      busy = busy.then(what).catch(reject);
    };
    const onKey = (key: Key): void => {
      if (key === 'q') {
        stopView();
        stopWatch();
        resolve();
      } else if (key === 'c') {
        const next = canary.find((share) => share > story.weights.v2) ?? 0;
        act(() => teller.setWeights(100 - next, next));
      } else if (key === 'b') act(() => teller.toggleBroken('ratings-2'));
      else if (key === 's') act(() => teller.toggleSlow('ratings-1', SLOW_MS));
      else act(() => teller.rotate());
    };
    const every =
      (ms: number) =>
      (fn: () => void): (() => void) => {
        let cancel = clock.after(ms, function again() {
          fn();
          cancel = clock.after(ms, again);
        });
        return () => cancel();
      };
    const stopWatch = every(1_000)(() => act(() => teller.observe()));
    const stopView = startView(story, () => clock.now(), every(500), onKey);
  });
  await busy;
}

interface Report {
  readonly requests: number;
  readonly failed: number;
  readonly mtlsEdges: number;
  readonly split: { readonly v1: number; readonly v2: number };
  readonly weights: { readonly v1: number; readonly v2: number };
  readonly ejected: readonly string[];
  readonly rotations: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly proxies: readonly { readonly id: string; readonly acked: number; readonly rejected: number }[];
  readonly errors: readonly string[];
}

async function buildReport({ teller, load }: Running): Promise<Report> {
  const { story } = teller;
  const outcomes = load.outcomes;
  const window = measured.get(teller) ?? { outcomes, weights: story.weights };
  return {
    requests: outcomes.length,
    failed: story.failed,
    mtlsEdges: story.edges.length,
    split: splitOf(window.outcomes),
    weights: window.weights,
    ejected: [...story.ejectedEver],
    rotations: story.rotations,
    p50Ms: percentileMs(outcomes, 0.5),
    p99Ms: percentileMs(outcomes, 0.99),
    proxies: await teller.proxies(),
    errors: [...new Set(outcomes.filter((outcome) => !outcome.ok).map((outcome) => outcome.error))].slice(0, 5),
  };
}

function describe(report: Report): string {
  const lines = [
    '',
    `  ${report.requests} requests, ${report.failed} failed, p50 ${report.p50Ms} ms, p99 ${report.p99Ms} ms`,
    `  mTLS on ${report.mtlsEdges} edges, reviews v1 ${report.split.v1} : v2 ${report.split.v2} at weights ${report.weights.v1} : ${report.weights.v2}`,
    `  ejected ${report.ejected.join(', ') || 'nobody'}, certificates rotated ${report.rotations} ${report.rotations === 1 ? 'time' : 'times'}, ${report.proxies.length} proxies, ${report.proxies.reduce((sum, proxy) => sum + proxy.rejected, 0)} rejections`,
    ...report.errors.map((error) => `  ✖ ${error}`),
    '',
  ];
  return `${lines.join('\n')}\n`;
}
