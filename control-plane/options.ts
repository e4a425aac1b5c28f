/** The options of `meshwork control-plane`: command line in, checked values out. */
import { parseArgs } from 'node:util';
import { isIP } from 'node:net';
import type { LogLevel } from '../lib/log.ts';
import { LOG_LEVELS } from '../lib/log.ts';

export interface ListenAddress {
  readonly host: string;
  /** 0 = any free port. */
  readonly port: number;
}

export interface ControlPlaneOptions {
  /** YAML files and directories to watch. */
  readonly files: readonly string[];
  /** xDS in plaintext: loopback only. */
  readonly xds: ListenAddress;
  /** xDS over TLS; a client certificate or a join token says who calls. */
  readonly xdsTls: ListenAddress;
  readonly api: ListenAddress;
  /** Prometheus text on `/metrics`. */
  readonly metrics: ListenAddress;
  /** Undefined = everything is forgotten when the process ends. */
  readonly dataDir: string | undefined;
  /** Host names that the API answers to, beside IP addresses, `localhost` and the host of `--api`. */
  readonly apiHosts: readonly string[];
  /** DNS names in the certificate of the TLS port, beside `localhost` and the loopback addresses. */
  readonly tlsNames: readonly string[];
  readonly output: 'text' | 'json';
  readonly logLevel: LogLevel;
  readonly logFormat: 'text' | 'json';
}

/** The command line is wrong; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export const DEFAULT_OPTIONS: ControlPlaneOptions = {
  files: [],
  xds: { host: '127.0.0.1', port: 15010 },
  xdsTls: { host: '127.0.0.1', port: 15012 },
  api: { host: '127.0.0.1', port: 15080 },
  metrics: { host: '127.0.0.1', port: 15014 },
  dataDir: undefined,
  apiHosts: [],
  tlsNames: [],
  output: 'text',
  logLevel: 'info',
  logFormat: 'text',
};

export const CONTROL_PLANE_HELP = `Usage: meshwork control-plane [-f FILE|DIR ...] [options]

Runs the control plane: reads services and routes, issues identities, pushes configuration to the proxies.

  -f, --file FILE|DIR     YAML to read and watch; may be given several times
      --xds ADDR          xDS in plaintext, loopback addresses only   (127.0.0.1:15010)
      --xds-tls ADDR      xDS over TLS with join tokens and certificates (127.0.0.1:15012)
      --tls-name NAME     one more DNS name or IP address in the certificate of --xds-tls; may be given several times
      --api ADDR          REST API, OpenAPI at /api/v1/openapi.json   (127.0.0.1:15080)
      --api-host NAME     one more host name that the API answers to; may be given several times
      --metrics ADDR      Prometheus metrics at /metrics              (127.0.0.1:15014)
      --data-dir DIR      keep what the API wrote, leases and the authority's keys here; without it they end with the process
      --kubernetes        read from a Kubernetes cluster (not in this version)
  -o, --output text|json  json: one line on stdout with the real addresses when ready
      --log-level LEVEL   ${LOG_LEVELS.join(', ')} (info)
      --log-format FORMAT text or json (text)
  -h, --help              this text

ADDR is HOST:PORT; port 0 takes any free one.`;

/** Parses arguments (without program and verb). Answers `help` when that was asked for. Throws UsageError with option, rule and value. */
export function parseControlPlaneArgs(argv: readonly string[]): ControlPlaneOptions | 'help' {
  const values = parse(argv);
  if (values.help === true) return 'help';
  if (values.kubernetes === true)
    throw new UsageError('--kubernetes: reading from a cluster is not in this version; use -f with the same YAML files');
  const defaults = DEFAULT_OPTIONS;
  const xds = address('--xds', values.xds, defaults.xds);
  if (!isLoopback(xds.host))
    throw new UsageError(
      `--xds: plaintext xDS is served on loopback addresses only, received ${JSON.stringify(xds.host)}; use --xds-tls for others`,
    );
  return {
    files: values.file ?? [],
    xds,
    xdsTls: address('--xds-tls', values['xds-tls'], defaults.xdsTls),
    api: address('--api', values.api, defaults.api),
    metrics: address('--metrics', values.metrics, defaults.metrics),
    dataDir: values['data-dir'],
    apiHosts: values['api-host'] ?? [],
    tlsNames: values['tls-name'] ?? [],
    output: oneOf('--output', values.output, ['text', 'json'], defaults.output),
    logLevel: oneOf('--log-level', values['log-level'], LOG_LEVELS, defaults.logLevel),
    logFormat: oneOf('--log-format', values['log-format'], ['text', 'json'], defaults.logFormat),
  };
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      strict: true,
      allowPositionals: false,
      options: {
        file: { type: 'string', short: 'f', multiple: true },
        xds: { type: 'string' },
        'xds-tls': { type: 'string' },
        'tls-name': { type: 'string', multiple: true },
        api: { type: 'string' },
        'api-host': { type: 'string', multiple: true },
        metrics: { type: 'string' },
        'data-dir': { type: 'string' },
        kubernetes: { type: 'boolean' },
        output: { type: 'string', short: 'o' },
        'log-level': { type: 'string' },
        'log-format': { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** 127.0.0.0/8, ::1 and `localhost`. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** `HOST:PORT`, `[V6]:PORT` or `:PORT` on the loopback address. */
export function parseListenAddress(option: string, text: string): ListenAddress {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535)
    throw new UsageError(`${option}: an address is HOST:PORT with a port up to 65535, received ${JSON.stringify(text)}`);
  const host = match[1] ?? match[2] ?? '';
  return { host: host === '' ? '127.0.0.1' : host, port };
}

export function formatAddress(address: ListenAddress): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

function address(option: string, text: string | undefined, fallback: ListenAddress): ListenAddress {
  return text === undefined ? fallback : parseListenAddress(option, text);
}

function oneOf<T extends string>(option: string, text: string | undefined, words: readonly T[], fallback: T): T {
  if (text === undefined) return fallback;
  const found = words.find((word) => word === text);
  if (found === undefined) throw new UsageError(`${option}: takes one of ${words.join(', ')}, received ${JSON.stringify(text)}`);
  return found;
}
