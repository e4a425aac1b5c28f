/** The proxy's command line: Envoy's flags, read without guessing. */
import { didYouMean } from '../lib/suggest.ts';
import type { LogLevel } from '../lib/log.ts';

export interface ProxyOptions {
  /** `serve` runs; `validate` compiles the bootstrap and exits; the others print and exit. */
  readonly mode: 'serve' | 'validate' | 'version' | 'help' | 'hot-restart-version';
  readonly configPath: string | undefined;
  /** YAML merged over the file. */
  readonly configYaml: string | undefined;
  readonly logLevel: LogLevel;
  readonly logFormat: 'text' | 'json';
  /** The file that the proxy's own log goes to; undefined = standard error. */
  readonly logPath: string | undefined;
  /** Empty = what the bootstrap says. */
  readonly serviceNode: string;
  readonly serviceCluster: string;
  readonly serviceZone: string;
  /** How long connections are drained after a listener goes or the process is told to stop. Default 600 s, as Envoy's. */
  readonly drainTimeMs: number;
  /** `gradual` closes connections with rising probability over the drain time; `immediate` on their next response. */
  readonly drainStrategy: 'gradual' | 'immediate';
  /** Longest wait between the stop signal and the end of the process. */
  readonly parentShutdownTimeMs: number;
  /** A file that the admin server's real address is written to. */
  readonly adminAddressPath: string | undefined;
  /** Where the last good configuration is kept, for starts without a control plane; undefined = in memory only. */
  readonly stateDir: string | undefined;
  /** Routes, clusters and endpoints are asked for when they are first used; the node's metadata `MESHWORK_LAZY` says the same. */
  readonly lazy: boolean;
  /** How long a host may be without a request before it is forgotten. Default 300 s. */
  readonly lazyIdleMs: number;
  /** Virtual hosts in use at the same time. Default 1,000. */
  readonly lazyHostsMax: number;
  /** Connections between two sidecars share one of TLS where both can. */
  readonly mux: boolean;
  readonly concurrency: number;
  readonly allowUnknownStaticFields: boolean;
  readonly rejectUnknownDynamicFields: boolean;
  readonly fileFlushIntervalMs: number;
  /** A port for health probes (`/healthz/ready`) and one for metrics (`/stats/prometheus`), open to other machines; undefined = none. */
  readonly healthPort: number | undefined;
  readonly metricsPort: number | undefined;
  /** URL of the application's metrics, merged behind ours on the metrics port. */
  readonly applicationMetrics: string | undefined;
  /** Sentences about flags that were not understood or do nothing here. */
  readonly warnings: readonly string[];
}

/** A command line that cannot be understood: exit code 2. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}

type Draft = { -readonly [K in keyof ProxyOptions]: ProxyOptions[K] };

const LEVELS: Readonly<Record<string, LogLevel>> = {
  trace: 'trace',
  debug: 'debug',
  info: 'info',
  warn: 'warning',
  warning: 'warning',
  error: 'error',
  critical: 'critical',
  off: 'off',
};

/** Flags with a value. Those that set nothing are Envoy's knobs for things that do not exist here; they are accepted in silence. */
const VALUE_FLAGS: Readonly<Record<string, (draft: Draft, value: string, flag: string) => void>> = {
  '-c': (draft, value) => void (draft.configPath = value),
  '--config-path': (draft, value) => void (draft.configPath = value),
  '--config-yaml': (draft, value) => void (draft.configYaml = value),
  '-l': (draft, value, flag) => void (draft.logLevel = oneOf(flag, value, LEVELS)),
  '--log-level': (draft, value, flag) => void (draft.logLevel = oneOf(flag, value, LEVELS)),
  '--log-path': (draft, value) => void (draft.logPath = value),
  '--log-format': (draft, value) => void (draft.logFormat = value === 'json' ? 'json' : 'text'),
  '--mode': (draft, value, flag) =>
    void (draft.mode = oneOf(flag, value, { serve: 'serve', validate: 'validate', init_only: 'validate' } as const)),
  '--service-node': (draft, value) => void (draft.serviceNode = value),
  '--service-cluster': (draft, value) => void (draft.serviceCluster = value),
  '--service-zone': (draft, value) => void (draft.serviceZone = value),
  '--drain-time-s': (draft, value, flag) => void (draft.drainTimeMs = seconds(flag, value)),
  '--drain-strategy': (draft, value, flag) =>
    void (draft.drainStrategy = oneOf(flag, value, { gradual: 'gradual', immediate: 'immediate' } as const)),
  '--parent-shutdown-time-s': (draft, value, flag) => void (draft.parentShutdownTimeMs = seconds(flag, value)),
  '--admin-address-path': (draft, value) => void (draft.adminAddressPath = value),
  '--file-flush-interval-msec': (draft, value, flag) => void (draft.fileFlushIntervalMs = wholeNumber(flag, value)),
  '--state-dir': (draft, value) => void (draft.stateDir = value),
  '--lazy-idle-s': (draft, value, flag) => void (draft.lazyIdleMs = positive(flag, value) * 1000),
  '--lazy-hosts': (draft, value, flag) => void (draft.lazyHostsMax = positive(flag, value)),
  '--health-port': (draft, value, flag) => void (draft.healthPort = port(flag, value)),
  '--metrics-port': (draft, value, flag) => void (draft.metricsPort = port(flag, value)),
  '--application-metrics': (draft, value) => {
    if (!URL.canParse(value) || !value.startsWith('http://'))
      throw new UsageError(`--application-metrics takes an http URL, received ${JSON.stringify(value)}`);
    draft.applicationMetrics = value;
  },
  '--concurrency': (draft, value, flag) => {
    draft.concurrency = wholeNumber(flag, value);
    if (draft.concurrency > 1) addWarning(draft, `--concurrency ${value}: one process runs one event loop, so 1 is used.`);
  },
  '--component-log-level': accept,
  '--local-address-ip-version': accept,
  '--file-flush-min-size-kb': accept,
  '--base-id': accept,
  '--base-id-path': accept,
  '--restart-epoch': accept,
  '--socket-path': accept,
  '--socket-mode': accept,
  '--stats-tag': accept,
  '--disable-extensions': (draft, value) =>
    addWarning(draft, `--disable-extensions ${value}: extensions are built in and stay; what no configuration names is not used.`),
};

const PLAIN_FLAGS: Readonly<Record<string, (draft: Draft) => void>> = {
  '--hot-restart-version': (draft) => void (draft.mode = 'hot-restart-version'),
  '--version': (draft) => void (draft.mode = 'version'),
  '--help': (draft) => void (draft.mode = 'help'),
  '-h': (draft) => void (draft.mode = 'help'),
  '--lazy': (draft) => void (draft.lazy = true),
  '--no-mux': (draft) => void (draft.mux = false),
  '--allow-unknown-static-fields': (draft) => void (draft.allowUnknownStaticFields = true),
  '--allow-unknown-fields': (draft) => void (draft.allowUnknownStaticFields = true),
  '--reject-unknown-dynamic-fields': (draft) => void (draft.rejectUnknownDynamicFields = true),
  '--disable-hot-restart': ignore,
  '--use-dynamic-base-id': ignore,
  '--skip-hot-restart-parent-stats': ignore,
  '--skip-hot-restart-on-no-parent': ignore,
  '--skip-deprecated-logs': ignore,
  '--enable-core-dump': ignore,
  '--enable-fine-grain-logging': ignore,
  '--enable-mutex-tracing': ignore,
  '--log-format-escaped': ignore,
  '--log-stacktrace-single-entry': ignore,
  '--cpuset-threads': ignore,
  '--ignore-unknown-dynamic-fields': ignore,
};

/** Reads the flags that follow `meshwork proxy`. Throws `UsageError` for unknown flags and for values that cannot be read, as Envoy does. */
export function parseProxyOptions(argv: readonly string[]): ProxyOptions {
  const draft: Draft = {
    mode: 'serve',
    configPath: undefined,
    configYaml: undefined,
    logLevel: 'info',
    logFormat: 'text',
    logPath: undefined,
    serviceNode: '',
    serviceCluster: '',
    serviceZone: '',
    drainTimeMs: 600_000,
    drainStrategy: 'gradual',
    parentShutdownTimeMs: 900_000,
    adminAddressPath: undefined,
    stateDir: undefined,
    lazy: false,
    lazyIdleMs: 300_000,
    lazyHostsMax: 1_000,
    mux: true,
    concurrency: 1,
    allowUnknownStaticFields: false,
    rejectUnknownDynamicFields: false,
    fileFlushIntervalMs: 1_000,
    healthPort: undefined,
    metricsPort: undefined,
    applicationMetrics: undefined,
    warnings: [],
  };
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    const equals = word.startsWith('--') ? word.indexOf('=') : -1;
    const flag = equals === -1 ? word : word.slice(0, equals);
    const plain = PLAIN_FLAGS[flag];
    const withValue = VALUE_FLAGS[flag];
    if (plain !== undefined && equals === -1) {
      plain(draft);
    } else if (withValue !== undefined) {
      const value = equals === -1 ? argv[++i] : word.slice(equals + 1);
      if (value === undefined) throw new UsageError(`${flag} needs a value`);
      withValue(draft, value, flag);
    } else if (word.startsWith('-')) {
      const flags = [...Object.keys(PLAIN_FLAGS), ...Object.keys(VALUE_FLAGS)];
      throw new UsageError(`unknown flag ${flag}${didYouMean(flag, flags)}`);
    } else {
      throw new UsageError(`unexpected argument ${JSON.stringify(word)}; every setting is a flag, see --help`);
    }
  }
  if (draft.configPath === undefined && (draft.configYaml ?? '').trim() === '' && (draft.mode === 'serve' || draft.mode === 'validate'))
    throw new UsageError('a configuration is needed: -c FILE, --config-yaml TEXT, or both');
  return draft;
}

export const PROXY_USAGE = `usage: meshwork proxy -c BOOTSTRAP.yaml [flags]

  -c, --config-path FILE        Envoy bootstrap, YAML or JSON
  --config-yaml TEXT            merged over the file
  --mode serve|validate         validate compiles the bootstrap and exits with 0 or 1
  -l LEVEL                      trace, debug, info, warning, error, critical, off
  --log-format text|json        format of the proxy's own log
  --log-path FILE               the proxy's own log goes there instead of to standard error
  --service-node ID             overrides node.id
  --service-cluster NAME        overrides node.cluster
  --drain-time-s N              how long connections drain (600)
  --drain-strategy WORD         gradual or immediate
  --parent-shutdown-time-s N    longest time between the stop signal and the end (900)
  --state-dir DIR               the last good configuration is kept here; a start without a control plane uses it
  --lazy                        ask for routes, clusters and endpoints when they are first used
  --lazy-idle-s N               forget what had no request for this long (300)
  --lazy-hosts N                hosts in use at the same time (1000); beyond, the longest unused one goes
  --no-mux                      a connection of TLS for each one to other sidecars, which share one otherwise
  --admin-address-path FILE     the admin server's address is written there
  --health-port N               health probes: /healthz/ready, /healthz/live (15021 by convention)
  --metrics-port N              metrics: /stats/prometheus (15020 by convention)
  --application-metrics URL     the application's metrics, merged behind the proxy's
  --allow-unknown-static-fields unknown bootstrap fields are warnings, not errors
  --version                     prints the version
`;

function accept(): void {}

function ignore(): void {}

function addWarning(draft: Draft, sentence: string): void {
  draft.warnings = [...draft.warnings, sentence];
}

function oneOf<T>(flag: string, value: string, words: Readonly<Record<string, T>>): T {
  if (Object.hasOwn(words, value)) return words[value]!;
  throw new UsageError(`${flag} takes ${Object.keys(words).join(', ')}, received ${JSON.stringify(value)}`);
}

function wholeNumber(flag: string, value: string): number {
  if (!/^\d{1,9}$/.test(value)) throw new UsageError(`${flag} takes a whole number, received ${JSON.stringify(value)}`);
  return Number(value);
}

function positive(flag: string, value: string): number {
  const number = wholeNumber(flag, value);
  if (number === 0) throw new UsageError(`${flag} takes a whole number above 0, received 0`);
  return number;
}

function port(flag: string, value: string): number {
  const number = wholeNumber(flag, value);
  if (number > 65_535) throw new UsageError(`${flag} takes a port from 0 to 65535, received ${value}`);
  return number;
}

function seconds(flag: string, value: string): number {
  return wholeNumber(flag, value) * 1000;
}
