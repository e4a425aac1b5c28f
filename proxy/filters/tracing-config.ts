/** The connection manager's tracing settings: sampling, and where spans go. */
import { ConfigReader } from './config.ts';
import { reportSpan, tracing } from './tracing.ts';
import type { Observer } from './observe.ts';
import type { SpanExporter } from './otlp.ts';
import type { Span } from './tracing.ts';
import type { Layer } from '../service.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import type { ExtensionConfig, HttpConnectionManager } from '../../xds/snapshot.ts';

export interface TracingDeps {
  readonly random: Random;
  readonly log: Log;
  readonly exporter: (endpoint: string, serviceName: string) => SpanExporter;
  readonly otlpEndpoint: string;
  readonly self: { readonly canonicalService: string };
}

const OPEN_TELEMETRY = 'envoy.config.trace.v3.OpenTelemetryConfig';

/** No tracing settings = trace headers pass untouched. */
export function compileTracing(
  manager: HttpConnectionManager,
  kind: Span['kind'],
  path: string,
  deps: TracingDeps,
): { readonly filter: Layer | undefined; readonly observers: readonly Observer[] } {
  const settings = manager.tracing;
  if (settings === undefined) return { filter: undefined, observers: [] };
  const target = settings.provider === undefined ? undefined : readProvider(settings.provider, `${path}.provider`, deps.log);
  const endpoint = target?.endpoint ?? deps.otlpEndpoint;
  const serviceName = target?.serviceName || settings.serviceName || deps.self.canonicalService;
  const exporter = endpoint === '' ? undefined : deps.exporter(endpoint, serviceName);
  const send = exporter === undefined ? undefined : (span: Span): void => exporter.send(span);
  const filter = tracing({
    randomShare: settings.randomSamplingPercent / 100,
    overallShare: settings.overallSamplingPercent / 100,
    random: deps.random,
    kind,
    export: send,
  });
  return { filter, observers: send === undefined ? [] : [{ done: (exchange) => reportSpan(exchange, kind, send) }] };
}

/** Undefined for tracers of other kinds: they only watch, so requests go on without. */
function readProvider(provider: ExtensionConfig, path: string, log: Log): { endpoint: string; serviceName: string } | undefined {
  if (provider.type !== OPEN_TELEMETRY) {
    log.warning('Spans are not sent: the tracer is not OpenTelemetry.', { path, tracer: provider.type || provider.name });
    return undefined;
  }
  const reader = new ConfigReader(path, provider.config);
  const uri = reader.object('httpService')?.object('httpUri')?.string('uri') ?? '';
  if (uri === '') {
    log.warning('Spans are not sent: only OTLP over HTTP is, and the tracer has no http_service.', { path });
    return undefined;
  }
  return { endpoint: uri, serviceName: reader.string('serviceName') };
}
