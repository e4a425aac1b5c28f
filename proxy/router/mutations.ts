/** Header changes of routes, virtual hosts and weighted clusters, compiled at push: constants stay constants, formats become functions. */
import type { Clock } from '../../lib/clock.ts';
import type { HeaderMutations, HeaderValueOption } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import { compileTextFormat } from '../filters/format.ts';
import type { TextFormat } from '../filters/format.ts';
import { lowerName } from '../headers.ts';
import type { Headers } from '../headers.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';

export interface CompiledMutations {
  /** Undefined = nothing to change. */
  readonly request: ((request: ProxyRequest) => void) | undefined;
  readonly response: ((request: ProxyRequest, response: ProxyResponse) => void) | undefined;
}

interface Value {
  readonly name: string;
  readonly lower: string;
  readonly append: HeaderValueOption['append'];
  readonly keepEmpty: boolean;
  /** A text where the value is the same for all requests. */
  readonly value: string | TextFormat;
}

/** Headers that framing and routing own; a mutation of them would let two readers of one message disagree. */
const FORBIDDEN: ReadonlySet<string> = new Set([
  'content-length',
  'transfer-encoding',
  'connection',
  'te',
  'upgrade',
  'keep-alive',
  'proxy-connection',
]);
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/;

/**
 * Compiles the levels in the order in which they take effect; within a level removals come before additions (Envoy). `host` and `:authority` as
 * names of added request headers set the authority, `:path` the path. Throws `ConfigError` for names and formats that are not allowed.
 */
export function compileMutations(
  levels: readonly { readonly mutations: HeaderMutations; readonly path: string }[],
  clock: Clock,
): CompiledMutations {
  const onRequest: ((request: ProxyRequest) => void)[] = [];
  const onResponse: ((request: ProxyRequest, response: ProxyResponse) => void)[] = [];
  for (const { mutations, path } of levels) {
    const requestRemove = mutations.requestRemove.map((name) => removable(name, `${path}.request_headers_to_remove`));
    const requestAdd = mutations.requestAdd.map((option, i) => compileValue(option, `${path}.request_headers_to_add[${i}]`, true));
    if (requestRemove.length + requestAdd.length > 0) {
      onRequest.push((request) => {
        for (const lower of requestRemove) request.headers.remove(lower);
        for (const value of requestAdd) setOnRequest(request, value, textOf(value, request, undefined, clock));
      });
    }
    const responseRemove = mutations.responseRemove.map((name) => removable(name, `${path}.response_headers_to_remove`));
    const responseAdd = mutations.responseAdd.map((option, i) => compileValue(option, `${path}.response_headers_to_add[${i}]`, false));
    if (responseRemove.length + responseAdd.length > 0) {
      onResponse.push((request, response) => {
        for (const lower of responseRemove) response.headers.remove(lower);
        for (const value of responseAdd) setHeader(response.headers, value, textOf(value, request, response, clock));
      });
    }
  }
  return { request: sequence(onRequest), response: sequence2(onResponse) };
}

function sequence(steps: readonly ((request: ProxyRequest) => void)[]): ((request: ProxyRequest) => void) | undefined {
  if (steps.length < 2) return steps[0];
  return (request) => {
    for (const step of steps) step(request);
  };
}

function sequence2<B>(steps: readonly ((request: ProxyRequest, b: B) => void)[]): ((request: ProxyRequest, b: B) => void) | undefined {
  if (steps.length < 2) return steps[0];
  return (request, b) => {
    for (const step of steps) step(request, b);
  };
}

function removable(name: string, path: string): string {
  const lower = lowerName(name);
  if (lower.startsWith(':') || lower === 'host')
    throw new ConfigError(path, `Host and pseudo-headers cannot be removed, received ${JSON.stringify(name)}`);
  return lower;
}

function compileValue(option: HeaderValueOption, path: string, onRequest: boolean): Value {
  const lower = lowerName(option.name);
  const pseudo = lower === ':authority' || lower === ':path' || lower === 'host';
  if (FORBIDDEN.has(lower) || (!(pseudo && onRequest) && (!FIELD_NAME.test(option.name) || lower === 'host'))) {
    throw new ConfigError(path, `must be a header name that framing does not own, received ${JSON.stringify(option.name)}`);
  }
  if (option.value.includes('%DYNAMIC_METADATA')) throw new ConfigError(path, 'the operator %DYNAMIC_METADATA% is not supported');
  const format = compileTextFormat(option.value, path, { emptyText: '' });
  const constant = !option.value.includes('%');
  return { name: option.name, lower, append: option.append, keepEmpty: option.keepEmptyValue, value: constant ? option.value : format };
}

function textOf(value: Value, request: ProxyRequest, response: ProxyResponse | undefined, clock: Clock): string {
  if (typeof value.value === 'string') return value.value;
  const durationMs = clock.now() - request.startMs;
  return value.value({ request, response, durationMs, startWallMs: clock.wallMs() - durationMs });
}

function setOnRequest(request: ProxyRequest, value: Value, text: string): void {
  if (value.lower === ':authority' || value.lower === 'host') {
    if (text !== '') request.authority = text;
  } else if (value.lower === ':path') {
    if (text.startsWith('/')) request.path = text;
  } else setHeader(request.headers, value, text);
}

function setHeader(headers: Headers, value: Value, text: string): void {
  if (text === '' && !value.keepEmpty) return;
  switch (value.append) {
    case 'APPEND_IF_EXISTS_OR_ADD':
      headers.append(value.name, text);
      return;
    case 'ADD_IF_ABSENT':
      if (!headers.has(value.lower)) headers.append(value.name, text);
      return;
    case 'OVERWRITE_IF_EXISTS_OR_ADD':
      headers.set(value.name, text);
      return;
    case 'OVERWRITE_IF_EXISTS':
      if (headers.has(value.lower)) headers.set(value.name, text);
      return;
  }
}
