/** What the proxy's own answers look like, where a configuration wants them otherwise (HttpConnectionManager.local_reply_config). */
import { wholeBody } from '../http1/body.ts';
import { REASONS } from '../http1/error-response.ts';
import { compileLogFilter } from './access-log.ts';
import { compileJsonFormat, compileTextFormat } from './format.ts';
import type { ConfigReader } from './config.ts';
import type { Exchange } from './format.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Random } from '../../lib/random.ts';

export type LocalReply = (request: ProxyRequest, response: ProxyResponse) => ProxyResponse;

interface Mapper {
  readonly matches: (exchange: Exchange) => boolean;
  readonly status: number | undefined;
  readonly body: string | undefined;
  readonly format: Format | undefined;
  readonly headers: readonly { readonly name: string; readonly value: (exchange: Exchange) => string }[];
}

interface Format {
  readonly text: (exchange: Exchange) => string;
  readonly contentType: string;
}

/** The first mapper whose filter takes the answer changes status, body and headers; its format, or the common one, writes the body. */
export function compileLocalReply(config: ConfigReader, deps: { readonly clock: Clock; readonly random: Random }): LocalReply {
  const common = compileFormat(config.object('bodyFormat'));
  const mappers = config.objects('mappers').map((mapper) => compileMapper(mapper, deps.random));
  return (request, response) => {
    // gRPC's outcome stands in headers, and its callers expect no body.
    if (response.headers.has('grpc-status')) return response;
    const durationMs = deps.clock.now() - request.startMs;
    const exchange: Exchange = { request, response, durationMs, startWallMs: deps.clock.wallMs() - durationMs };
    const mapper = mappers.find((candidate) => candidate.matches(exchange));
    if (mapper?.status !== undefined) {
      response.status = mapper.status;
      response.reason = REASONS[mapper.status] ?? '';
    }
    if (mapper?.body !== undefined) setBody(request, response, mapper.body, 'text/plain');
    const format = mapper?.format ?? common;
    if (format !== undefined) setBody(request, response, format.text(exchange), format.contentType);
    for (const { name, value } of mapper?.headers ?? []) response.headers.append(name, value(exchange));
    return response;
  };
}

function compileMapper(config: ConfigReader, random: Random): Mapper {
  const filter = config.object('filter');
  const body = config.object('body');
  if (body !== undefined && !body.has('inlineString')) body.fail('', 'must be an inline_string');
  return {
    matches: filter === undefined ? () => true : compileLogFilter(filter, random),
    status: config.has('statusCode') ? config.number('statusCode', 0) : undefined,
    body: body?.string('inlineString'),
    format: compileFormat(config.object('bodyFormatOverride')),
    headers: config.objects('headersToAdd').map((option) => {
      const header = option.object('header') ?? option.fail('header', 'must be given');
      return { name: header.string('key'), value: compileTextFormat(header.string('value'), `${header.path}.value`, { emptyText: '' }) };
    }),
  };
}

/** core.v3.SubstitutionFormatString. */
function compileFormat(config: ConfigReader | undefined): Format | undefined {
  if (config === undefined) return undefined;
  const contentType = config.string('contentType');
  const json = config.object('jsonFormat');
  if (json !== undefined) {
    const compiled = compileJsonFormat(json.json, json.path);
    return { text: (exchange) => `${JSON.stringify(compiled(exchange))}\n`, contentType: contentType || 'application/json' };
  }
  const source = config.object('textFormatSource');
  const text = config.has('textFormat') ? config.string('textFormat') : source?.string('inlineString');
  if (text === undefined) return config.fail('', 'must have text_format, text_format_source with an inline_string, or json_format');
  return { text: compileTextFormat(text, config.path), contentType: contentType || 'text/plain' };
}

function setBody(request: ProxyRequest, response: ProxyResponse, text: string, contentType: string): void {
  const bytes = Buffer.from(text);
  response.headers.set('content-type', contentType);
  response.body = request.method === 'HEAD' ? undefined : wholeBody(bytes);
  response.contentLength = request.method === 'HEAD' ? bytes.length : undefined;
}
