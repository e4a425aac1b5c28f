/** `meshwork run`: an application with its sidecar, registered while it runs; signals and the exit code pass through. */
import { networkInterfaces } from 'node:os';
import { systemClock } from '../lib/clock.ts';
import { createLog } from '../lib/log.ts';
import { DEFAULT_API, createApiClient } from './client.ts';
import { CommandError, EXIT } from './exit.ts';
import { collect, integer, parse, verb } from './parse.ts';
import { freePorts } from './ports.ts';
import { runWorkload } from './workload.ts';
import type { WorkloadOptions } from './workload.ts';

interface Options {
  readonly service: string;
  readonly port?: number;
  readonly controlPlane: string;
  readonly namespace: string;
  readonly name?: string;
  readonly version?: string;
  readonly label: readonly string[];
  readonly weight: number;
  readonly locality?: string;
  readonly serviceAccount: string;
  readonly address?: string;
  readonly bind?: string;
  readonly outboundPort?: number;
  readonly inboundPort?: number;
  readonly adminPort?: number;
  readonly lazy: boolean;
  readonly lazyIdleS?: number;
  readonly mux: boolean;
  readonly logLevel: 'debug' | 'info' | 'warning' | 'error';
}

const port = (name: string): ((text: string) => number) => integer(name, 1, 65_535);

const EXAMPLES =
  '\nExamples:\n  meshwork run --service orders --port 3000 -- node app.js\n  meshwork run --service orders --port 3000 --version v2 --weight 3 -- npm start\n';

export async function run(argv: readonly string[]): Promise<number> {
  const split = argv.indexOf('--');
  const command = verb(
    'run',
    'Put a sidecar next to a program. Without a command only the sidecar runs, next to whatever listens on the port.',
  )
    .requiredOption('--service <name>', 'service that this instance belongs to')
    .option('--port <n>', 'port that the application listens on; without it the instance only calls others', port('--port'))
    .option('--control-plane <address>', 'API of the control plane', process.env['MESHWORK_CONTROL_PLANE'] ?? DEFAULT_API)
    .option('-n, --namespace <name>', 'namespace', 'default')
    .option('--name <name>', 'name of this instance (default: the service with a number)')
    .option('--version <version>', 'version label')
    .option('-l, --label <key=value>', 'further label, repeatable', collect, [])
    .option('--weight <n>', 'share of the traffic relative to the other instances', integer('--weight', 0, 65_535), 1)
    .option('--locality <place>', 'where it runs: REGION/ZONE or REGION/ZONE/SUBZONE, for failover by locality')
    .option('--service-account <name>', 'account of the identity (default: the service)')
    .option(
      '--address <ip>',
      'address at which other sidecars reach this one (default: the loopback, or this host when the control plane is elsewhere)',
    )
    .option('--bind <ip>', 'address that the inbound port listens on (default: the address)')
    .option('--outbound-port <n>', 'port that takes calls of the application (default: 15001, or a free one)', port('--outbound-port'))
    .option('--inbound-port <n>', 'port that takes calls of other sidecars (default: 15006, or a free one)', port('--inbound-port'))
    .option('--admin-port <n>', 'admin port on the loopback (default: 15000, or a free one)', port('--admin-port'))
    .option('--lazy', 'ask for routes, clusters and endpoints when they are first used, and forget them when they are not', false)
    .option('--lazy-idle-s <n>', 'forget what had no request for this long (default: 300)', integer('--lazy-idle-s', 1, 999_999))
    .option('--no-mux', 'a connection of TLS for each one to other sidecars, which share one otherwise')
    .option('--log-level <level>', 'debug, info, warning or error', 'warning')
    .usage('--service NAME --port N [options] -- COMMAND …')
    .allowExcessArguments()
    .addHelpText('after', EXAMPLES);
  const options = parse(command, split === -1 ? argv : argv.slice(0, split)).opts<Options>();
  if (command.args.length > 0)
    throw new CommandError(`put -- before the command: meshwork run --service ${options.service} -- ${command.args.join(' ')}`, EXIT.usage);
  const applicationCommand = split === -1 ? [] : argv.slice(split + 1);
  const address = options.address ?? process.env['POD_IP'] ?? ownAddress(options.controlPlane);
  const clock = systemClock();
  const [outbound, inbound, admin] = (await freePorts(3, [
    options.outboundPort ?? 15_001,
    options.inboundPort ?? 15_006,
    options.adminPort ?? 15_000,
  ])) as [number, number, number];
  const workload: WorkloadOptions = {
    service: options.service,
    namespace: options.namespace,
    ...(options.name === undefined ? {} : { name: options.name }),
    ...(options.port === undefined ? {} : { port: options.port }),
    serviceAccount: options.serviceAccount ?? options.service,
    labels: { app: options.service, ...(options.version === undefined ? {} : { version: options.version }), ...parseLabels(options.label) },
    weight: options.weight,
    ...(options.locality === undefined ? {} : { locality: parseLocality(options.locality) }),
    address,
    ports: {
      bindAddress: options.bind ?? address,
      outbound: options.outboundPort ?? outbound,
      inbound: options.inboundPort ?? inbound,
      admin: options.adminPort ?? admin,
    },
    proxyFlags: proxyFlags(options),
    command: applicationCommand,
  };
  const api = createApiClient(options.controlPlane);
  const log = createLog({ clock, level: options.logLevel, format: process.stderr.isTTY ? 'text' : 'json' });
  try {
    return await runWorkload(workload, { api, clock, log });
  } finally {
    await api.close();
  }
}

function proxyFlags({ lazy, lazyIdleS, mux }: Options): string[] {
  return [
    ...(lazy ? ['--lazy'] : []),
    ...(lazyIdleS === undefined ? [] : ['--lazy-idle-s', String(lazyIdleS)]),
    ...(mux ? [] : ['--no-mux']),
  ];
}

/** The loopback next to a control plane on this machine, else the first address of a network. */
function ownAddress(controlPlane: string): string {
  const host = new URL(/^https?:\/\//.test(controlPlane) ? controlPlane : `http://${controlPlane}`).hostname;
  if (host === 'localhost' || host === '[::1]' || host.startsWith('127.')) return '127.0.0.1';
  for (const addresses of Object.values(networkInterfaces()))
    for (const entry of addresses ?? []) if (!entry.internal && entry.family === 'IPv4') return entry.address;
  throw new CommandError('this host has no network address; name one with --address', EXIT.usage);
}

function parseLocality(text: string): NonNullable<WorkloadOptions['locality']> {
  const [region = '', zone, subZone, ...more] = text.split('/');
  if (more.length > 0 || /\s/.test(text) || [region, zone, subZone].every((part) => part === '' || part === undefined))
    throw new CommandError(`--locality takes REGION, REGION/ZONE or REGION/ZONE/SUBZONE, received "${text}"`, EXIT.usage);
  return { region, ...(zone === undefined ? {} : { zone }), ...(subZone === undefined ? {} : { subZone }) };
}

function parseLabels(labels: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    labels.map((label) => {
      const equals = label.indexOf('=');
      if (equals < 1) throw new CommandError(`--label takes key=value, received "${label}"`, EXIT.usage);
      return [label.slice(0, equals), label.slice(equals + 1)];
    }),
  );
}
