/** Access logs: which exchanges are written, in which format, to which file (envoy.extensions.access_loggers). */
import { ConfigError } from '../errors.ts';
import { ConfigReader } from './config.ts';
import { compileHeaderMatcher } from './matchers.ts';
import { compileJsonFormat, compileTextFormat, DEFAULT_FORMAT } from './format.ts';
import type { Exchange } from './format.ts';
import type { LineWriter } from './line-writer.ts';
import type { Observer } from './observe.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import type { AccessLogConfig } from '../../xds/snapshot.ts';

export interface AccessLogDeps {
  /** The writer of a path, shared by all that log there. */
  readonly writer: (path: string) => LineWriter;
  readonly random: Random;
  readonly log: Log;
}

const FILE = 'envoy.extensions.access_loggers.file.v3.FileAccessLog';
const STDOUT = 'envoy.extensions.access_loggers.stream.v3.StdoutAccessLog';
const STDERR = 'envoy.extensions.access_loggers.stream.v3.StderrAccessLog';
/** Logs that go to another service: they carry no policy, so a proxy without them still does its work. */
const SKIPPED: readonly string[] = [
  'envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig',
  'envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig',
  'envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig',
];

/** One observer per log that can be written here. Logs for other services are left out with a warning; unknown ones are refused. */
export function compileAccessLogs(configs: readonly AccessLogConfig[], path: string, deps: AccessLogDeps): Observer[] {
  return configs.flatMap((config, index) => {
    const place = `${path}.access_log[${index}]`;
    const type = config.type === '' ? (TYPE_BY_NAME[config.name] ?? '') : config.type;
    if (SKIPPED.includes(type)) {
      deps.log.warning('This access log is not written: only files, standard output and standard error are.', { path: place, type });
      return [];
    }
    const reader = new ConfigReader(place, config.config);
    const file = type === FILE ? reader.string('path') : type === STDOUT ? '/dev/stdout' : type === STDERR ? '/dev/stderr' : undefined;
    if (file === undefined)
      throw new ConfigError(place, `unknown access log ${JSON.stringify(type || config.name)}; there are ${FILE}, ${STDOUT} and ${STDERR}`);
    if (file === '') reader.fail('path', 'must name a file');
    const line = compileLine(reader);
    const writer = deps.writer(file);
    const wanted =
      config.filter === undefined ? undefined : compileLogFilter(new ConfigReader(`${place}.filter`, config.filter), deps.random);
    return [
      {
        done: (exchange: Exchange): void => {
          if (wanted === undefined || wanted(exchange)) writer.write(line(exchange));
        },
      },
    ];
  });
}

const TYPE_BY_NAME: Readonly<Record<string, string>> = {
  'envoy.access_loggers.file': FILE,
  'envoy.file_access_log': FILE,
  'envoy.access_loggers.stdout': STDOUT,
  'envoy.access_loggers.stderr': STDERR,
};

/** `log_format` (text_format, text_format_source, json_format), or the older `format` and `json_format`; Envoy's default line else. */
function compileLine(reader: ConfigReader): (exchange: Exchange) => string {
  const format = reader.object('logFormat');
  const json = format?.object('jsonFormat') ?? reader.object('jsonFormat') ?? reader.object('typedJsonFormat');
  if (json !== undefined) {
    const compiled = compileJsonFormat(json.json, json.path);
    return (exchange) => `${JSON.stringify(compiled(exchange))}\n`;
  }
  const source = format?.object('textFormatSource');
  const text = format?.string('textFormat') || source?.string('inlineString') || reader.string('format') || DEFAULT_FORMAT;
  return compileTextFormat(text, format?.path ?? reader.path);
}

export type LogFilter = (exchange: Exchange) => boolean;

/** envoy.config.accesslog.v3.AccessLogFilter. */
export function compileLogFilter(reader: ConfigReader, random: Random): LogFilter {
  const [kind = ''] = Object.keys(reader.json);
  const inner = reader.object(kind) ?? reader.fail('', 'must name one kind of filter');
  const list = (name: string): LogFilter[] => inner.objects(name).map((item) => compileLogFilter(item, random));
  switch (kind) {
    case 'statusCodeFilter':
      return comparison(inner, ({ response }) => response?.status ?? 0);
    case 'durationFilter':
      return comparison(inner, ({ durationMs }) => durationMs);
    case 'notHealthCheckFilter':
      return ({ request }) => request.info.filterState?.get('healthCheck') !== true;
    case 'traceableFilter':
      return ({ request }) => request.info.sampled;
    case 'runtimeFilter': {
      const share = inner.fraction('percentSampled', 1);
      return () => share >= 1 || random() < share;
    }
    case 'andFilter': {
      const filters = list('filters');
      return (exchange) => filters.every((filter) => filter(exchange));
    }
    case 'orFilter': {
      const filters = list('filters');
      return (exchange) => filters.some((filter) => filter(exchange));
    }
    case 'headerFilter': {
      const test = compileHeaderMatcher(inner.object('header') ?? inner.fail('header', 'must be a header matcher'));
      return ({ request }) => test(request);
    }
    case 'responseFlagFilter': {
      const flags = inner.strings('flags');
      return ({ request }) => {
        const found = request.info.responseFlags;
        return found !== '' && (flags.length === 0 || found.split(',').some((flag) => flags.includes(flag)));
      };
    }
    default:
      return reader.fail(
        '',
        'an access log filter is status_code_filter, duration_filter, not_health_check_filter, traceable_filter, runtime_filter, and_filter, or_filter, header_filter or response_flag_filter',
      );
  }
}

function comparison(reader: ConfigReader, value: (exchange: Exchange) => number): LogFilter {
  const comparisonReader = reader.object('comparison') ?? reader.fail('comparison', 'must be given');
  const bound = comparisonReader.object('value')?.number('defaultValue', 0) ?? 0;
  switch (comparisonReader.oneOf('op', ['EQ', 'GE', 'LE', 'NE'] as const, 'EQ')) {
    case 'EQ':
      return (exchange) => value(exchange) === bound;
    case 'GE':
      return (exchange) => value(exchange) >= bound;
    case 'LE':
      return (exchange) => value(exchange) <= bound;
    case 'NE':
      return (exchange) => value(exchange) !== bound;
  }
}
