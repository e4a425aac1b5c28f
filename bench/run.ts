/** The bench: ours and the peers in turn on the same cores; CPU per request from the operating system's accounting. `npm run bench -- --quick`. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { freePorts } from '../cli/ports.ts';
import { writeCertificates } from './certificates.ts';
import { atRate, findFortio, saturate } from './load.ts';
import type { LoadResult } from './load.ts';
import { startNginx } from './peers/nginx.ts';
import { PEERS } from './peers/index.ts';
import type { Hop, Peer, TlsFiles } from './peers/peer.ts';
import type { Measured } from './process.ts';
import { chart, describeMachine, table } from './report.ts';
import type { Row } from './report.ts';
import { SCENARIOS } from './scenarios.ts';
import type { Scenario } from './scenarios.ts';

/** The proxy has one core, the load and the upstream share the other. */
const PROXY_CORE = 0;
const LOAD_CORE = 1;

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    seconds: { type: 'string' },
    peers: { type: 'string' },
    scenarios: { type: 'string' },
    rounds: { type: 'string' },
    out: { type: 'string' },
  },
});
const seconds = Number(values.seconds ?? (values.quick ? 2 : 8));
/** A managed runtime compiles what is hot meanwhile; on a slow machine that takes seconds. */
const warmUpSeconds = values.quick ? 1 : 6;
const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
const wantedPeers =
  values.peers?.split(',') ?? (values.quick ? ['meshwork', 'nginx', 'haproxy', 'envoy', 'nodeUndici'] : Object.keys(PEERS));
const wantedScenarios = values.scenarios?.split(',');

const directory = mkdtempSync(join(tmpdir(), 'meshwork-bench-'));
try {
  await main();
} finally {
  rmSync(directory, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const tls = writeCertificates(directory);
  const peers = findPeers();
  const fortio = findFortio();
  if (fortio === undefined) process.stderr.write('fortio is not on PATH and Go could not install it: no fixed-rate rows\n');
  const rows: Row[] = [];
  for (const scenario of SCENARIOS.filter((entry) =>
    wantedScenarios === undefined ? !values.quick || entry.quick === true : wantedScenarios.includes(entry.name),
  )) {
    const [upstreamPort, upstreamTlsPort] = (await freePorts(2)) as [number, number];
    const upstream = await startUpstream(upstreamPort, upstreamTlsPort, tls);
    try {
      const measured: Row[] = [];
      // Rounds go over all peers in turn, so that a slow minute of the machine hits everybody.
      for (let round = 0; round < rounds; round++)
        for (const peer of peers.filter((entry) => entry.can(scenario.shape === 'single' ? 'plain' : 'originate')))
          measured.push(await measure(peer, scenario, upstreamPort, upstreamTlsPort, tls));
      const best = mergeRounds(measured);
      if (scenario.atRate === true && fortio !== undefined) await measureAtRate(best, peers, scenario, upstreamPort, tls, fortio);
      rows.push(...best);
      process.stdout.write(table(scenario.title, best));
    } finally {
      await upstream.stop();
    }
  }
  save(rows, peers);
}

function findPeers(): Peer[] {
  return Object.entries(PEERS).flatMap(([key, peer]) => {
    if (!wantedPeers.includes(key)) return [];
    if (peer.version() !== undefined) return [peer];
    process.stderr.write(`${peer.name} is not on this machine: left out\n`);
    return [];
  });
}

function startUpstream(port: number, tlsPort: number, tls: TlsFiles): Promise<Measured> {
  const home = join(directory, 'www');
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, '1m'), Buffer.alloc(2 ** 20, 'x'));
  const locations = `location = /1k { return 200 "${'x'.repeat(1024)}"; } location / { root ${home}; } error_page 405 =200 $uri;`;
  return startNginx(
    { name: 'upstream', core: LOAD_CORE, directory, listenPort: port },
    `sendfile on; server { listen 127.0.0.1:${port} backlog=4096; ${locations} }
     server { listen 127.0.0.1:${tlsPort} ssl backlog=4096; ssl_certificate ${tls.chain}; ssl_certificate_key ${tls.key}; ssl_client_certificate ${tls.roots}; ssl_verify_client on; ssl_protocols TLSv1.3; ${locations} }`,
  );
}

/** Starts the peer (or the pair) and answers the port to send to. */
async function startShape(
  peer: Peer,
  scenario: Scenario,
  upstreamPort: number,
  upstreamTlsPort: number,
  tls: TlsFiles,
): Promise<{ port: number; processes: Measured[] }> {
  const [first, second] = (await freePorts(2)) as [number, number];
  const start = (name: string, hop: Hop, listenPort: number, to: number): Promise<Measured> =>
    peer.start({ name, hop, listenPort, upstreamPort: to, core: PROXY_CORE, directory });
  if (scenario.shape === 'single') return { port: first, processes: [await start(peer.name, { kind: 'plain' }, first, upstreamPort)] };
  if (scenario.shape === 'originate')
    return { port: first, processes: [await start(peer.name, { kind: 'originate', tls }, first, upstreamTlsPort)] };
  const inbound = await start(`${peer.name}-b`, { kind: 'terminate', tls }, second, upstreamPort);
  const outbound = await start(`${peer.name}-a`, { kind: 'originate', tls }, first, second);
  return { port: first, processes: [inbound, outbound] };
}

async function measure(peer: Peer, scenario: Scenario, upstreamPort: number, upstreamTlsPort: number, tls: TlsFiles): Promise<Row> {
  const { port, processes } = await startShape(peer, scenario, upstreamPort, upstreamTlsPort, tls);
  try {
    const load = { ...scenario, url: `http://127.0.0.1:${port}${scenario.path}`, core: LOAD_CORE };
    await saturate({ ...load, seconds: warmUpSeconds });
    const cpuBefore = processes.reduce((total, entry) => total + entry.cpuUs(), 0);
    const result = await saturate({ ...load, seconds });
    const cpu = processes.reduce((total, entry) => total + entry.cpuUs(), 0) - cpuBefore;
    return {
      scenario: scenario.name,
      peer: peer.name,
      cpuUsPerRequest: cpu / Math.max(1, result.requests),
      rssMiB: processes.reduce((total, entry) => total + entry.rssMiB(), 0),
      saturation: result,
    };
  } finally {
    for (const entry of processes) await entry.stop();
  }
}

/** Per peer the round with the least CPU per request: noise only ever adds. */
function mergeRounds(rows: readonly Row[]): Row[] {
  const best = new Map<string, Row>();
  for (const row of rows)
    if (row.cpuUsPerRequest < (best.get(row.peer)?.cpuUsPerRequest ?? Number.POSITIVE_INFINITY)) best.set(row.peer, row);
  return [...best.values()];
}

/** Everybody at half of nginx's saturation (or the slowest's, where that is lower), one after the other. */
async function measureAtRate(
  rows: Row[],
  peers: readonly Peer[],
  scenario: Scenario,
  upstreamPort: number,
  tls: TlsFiles,
  fortio: string,
): Promise<void> {
  const compared = rows.filter((row) => row.peer === 'meshwork' || row.peer === 'nginx');
  const requestsPerSecond = Math.min(...compared.map((row) => row.saturation.requestsPerSecond)) / 2;
  for (const row of rows) {
    const peer = peers.find((entry) => entry.name === row.peer)!;
    const { port, processes } = await startShape(peer, scenario, upstreamPort, 0, tls);
    try {
      const load = { ...scenario, url: `http://127.0.0.1:${port}${scenario.path}`, core: LOAD_CORE, requestsPerSecond };
      // Warmed up by the load that is measured: another one is other code, compiled anew in the first seconds.
      await atRate(fortio, { ...load, seconds: warmUpSeconds });
      const result: LoadResult = await atRate(fortio, { ...load, seconds: values.quick ? 3 : Math.max(5, seconds) });
      row.fixedRate = result;
    } finally {
      for (const entry of processes) await entry.stop();
    }
  }
}

function save(rows: readonly Row[], peers: readonly Peer[]): void {
  const out = values.out ?? join(import.meta.dirname, 'results', values.quick ? 'quick' : 'latest');
  const report = {
    command: ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' '),
    seconds,
    rounds,
    machine: describeMachine(),
    versions: Object.fromEntries(peers.map((peer) => [peer.name, peer.version()])),
    rows,
  };
  writeFileSync(`${out}.json`, `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(`${out}.svg`, chart(rows));
  process.stderr.write(`written: ${out}.json and ${out}.svg\n`);
}
