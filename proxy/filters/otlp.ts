/** Sends spans to a collector as OTLP over HTTP with JSON: in batches, from a bounded queue, dropping and counting when the collector is too slow. */
import { request as sendHttps } from 'node:https';
import { http } from '../../lib/on-demand.ts';
import type { Span } from './tracing.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';

export interface SpanExporter {
  send(span: Span): void;
  /** Sends what waits and resolves when it is out or given up. */
  close(): Promise<void>;
  readonly dropped: number;
}

export interface OtlpOptions {
  /** The collector's base URL (OTEL_EXPORTER_OTLP_ENDPOINT); `/v1/traces` is added unless it is there. */
  readonly endpoint: string;
  readonly serviceName: string;
  /** Further attributes of the resource. */
  readonly resource: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly log: Log;
}

const QUEUE_SPANS_MAX = 2_048;
const BATCH_SPANS_MAX = 512;
const FLUSH_MS = 1_000;
const SEND_TIMEOUT_MS = 10_000;

/** Starts an exporter. Throws when the endpoint is no http or https URL. */
export function otlpExporter(options: OtlpOptions): SpanExporter {
  const url = new URL(options.endpoint);
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new Error(`an OTLP endpoint is an http or https URL, received ${JSON.stringify(options.endpoint)}`);
  if (!url.pathname.endsWith('/v1/traces')) url.pathname = `${url.pathname.replace(/\/$/, '')}/v1/traces`;
  const waiting: Span[] = [];
  let dropped = 0;
  let cancelTimer: (() => void) | undefined;
  let sending: Promise<void> | undefined;

  const flush = (): Promise<void> => {
    cancelTimer?.();
    cancelTimer = undefined;
    if (sending !== undefined) return sending;
    if (waiting.length === 0) return Promise.resolve();
    const batch = waiting.splice(0, BATCH_SPANS_MAX);
    sending = post(url, encode(batch, options), options)
      .catch((error: unknown) => {
        dropped += batch.length;
        options.log.warning('Spans could not be sent to the collector.', { endpoint: options.endpoint, spans: batch.length, error });
      })
      .then(() => {
        sending = undefined;
        if (waiting.length > 0) arm();
      });
    return sending;
  };
  const arm = (): void => {
    cancelTimer ??= options.clock.after(FLUSH_MS, () => void flush());
  };
  return {
    send: (span) => {
      if (waiting.length >= QUEUE_SPANS_MAX) {
        dropped++;
        return;
      }
      waiting.push(span);
      if (waiting.length >= BATCH_SPANS_MAX) void flush();
      else arm();
    },
    close: async () => {
      await sending;
      for (let rounds = 0; waiting.length > 0 && rounds < QUEUE_SPANS_MAX / BATCH_SPANS_MAX; rounds++) await flush();
      cancelTimer?.();
    },
    get dropped() {
      return dropped;
    },
  };
}

const KINDS = { server: 2, client: 3 } as const;

/** ExportTraceServiceRequest by OTLP's JSON mapping: ids in hex, 64-bit numbers as text. */
export function encode(spans: readonly Span[], options: Pick<OtlpOptions, 'serviceName' | 'resource'>): string {
  return JSON.stringify({
    resourceSpans: [
      {
        resource: { attributes: attributes({ 'service.name': options.serviceName, ...options.resource }) },
        scopeSpans: [
          {
            scope: { name: 'meshwork.proxy' },
            spans: spans.map((span) => ({
              traceId: span.traceId,
              spanId: span.spanId,
              ...(span.parentSpanId === '' ? {} : { parentSpanId: span.parentSpanId }),
              name: span.name,
              kind: KINDS[span.kind],
              startTimeUnixNano: nanoseconds(span.startWallMs),
              endTimeUnixNano: nanoseconds(span.endWallMs),
              attributes: attributes(span.attributes),
              status: span.failed ? { code: 2 } : {},
            })),
          },
        ],
      },
    ],
  });
}

function attributes(values: Readonly<Record<string, string | number>>): unknown[] {
  return Object.entries(values).map(([key, value]) => ({
    key,
    value: typeof value === 'number' ? { intValue: String(Math.round(value)) } : { stringValue: value },
  }));
}

function nanoseconds(ms: number): string {
  return `${Math.floor(ms)}${String(Math.floor((ms % 1) * 1e6)).padStart(6, '0')}`;
}

function post(url: URL, body: string, options: OtlpOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? sendHttps : http().request;
    const request = send(url, {
      method: 'POST',
      headers: { ...options.headers, 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) },
    });
    const cancelTimer = options.clock.after(SEND_TIMEOUT_MS, () => request.destroy(new Error(`no answer within ${SEND_TIMEOUT_MS} ms`)));
    request.on('response', (response) => {
      response.resume();
      response.on('error', reject);
      response.on('end', () => {
        cancelTimer();
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 300) resolve();
        else reject(new Error(`the collector answered with status ${status}`));
      });
    });
    request.on('error', (error) => {
      cancelTimer();
      reject(error);
    });
    request.end(body);
  });
}
