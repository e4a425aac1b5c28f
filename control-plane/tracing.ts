/** Traces of pushes and API calls, sent by OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector and at no cost otherwise. */
import type { Log } from '../lib/log.ts';

export type Attributes = Readonly<Record<string, string | number | boolean>>;

export interface Span {
  set(name: string, value: string | number | boolean): void;
  /** Ending twice is fine. An error marks the span as failed. */
  end(error?: string): void;
}

export interface Spans {
  start(name: string, attributes?: Attributes): Span;
  close(): Promise<void>;
}

const NO_SPAN: Span = { set: () => undefined, end: () => undefined };

/** Spans that go nowhere. */
export const NO_SPANS: Spans = { start: () => NO_SPAN, close: () => Promise.resolve() };

/** Loads the OpenTelemetry SDK only when the environment asks for it; its other `OTEL_` variables hold then. */
export async function startTracing(environment: Readonly<Record<string, string | undefined>>, log: Log): Promise<Spans> {
  const endpoint = environment['OTEL_EXPORTER_OTLP_ENDPOINT'];
  if (endpoint === undefined || endpoint === '') return NO_SPANS;
  const [{ NodeSDK }, { trace, SpanStatusCode }] = await Promise.all([import('@opentelemetry/sdk-node'), import('@opentelemetry/api')]);
  const sdk = new NodeSDK({ serviceName: environment['OTEL_SERVICE_NAME'] ?? 'meshwork-control-plane' });
  sdk.start();
  log.info('Traces are exported.', { endpoint });
  const tracer = trace.getTracer('meshwork-control-plane');
  return {
    start(name, attributes = {}) {
      const span = tracer.startSpan(name, { attributes: { ...attributes } });
      let open = true;
      return {
        set: (key, value) => void span.setAttribute(key, value),
        end(error) {
          if (!open) return;
          open = false;
          if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
          span.end();
        },
      };
    },
    close: () =>
      sdk.shutdown().catch((error: unknown) => {
        log.warning('The last traces could not be sent.', { error });
      }),
  };
}
