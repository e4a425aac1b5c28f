/** Envoy's format strings (`%REQ(:METHOD)% %RESPONSE_CODE%`), compiled at push into a function from an exchange to text. */
import { ConfigError } from '../errors.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import type { Json, JsonObject } from '../../xds/snapshot.ts';

/** One request and what became of it. `response` is undefined while there is none, and when the client went away first. */
export interface Exchange {
  readonly request: ProxyRequest;
  readonly response: ProxyResponse | undefined;
  readonly startWallMs: number;
  readonly durationMs: number;
}

export type TextFormat = (exchange: Exchange) => string;

type Value = string | number | undefined;
type Operator = (exchange: Exchange) => Value;

/** Envoy's default access log line (access_log/usage, "Default format string"). */
export const DEFAULT_FORMAT =
  '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% ' +
  '%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" ' +
  '"%UPSTREAM_HOST%"\n';

/** Keys and values of the JSON line that is written when JSON is asked for without a layout of its own. */
export const DEFAULT_JSON_FORMAT: JsonObject = {
  start_time: '%START_TIME%',
  method: '%REQ(:METHOD)%',
  path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%',
  protocol: '%PROTOCOL%',
  response_code: '%RESPONSE_CODE%',
  response_flags: '%RESPONSE_FLAGS%',
  response_code_details: '%RESPONSE_CODE_DETAILS%',
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
  duration: '%DURATION%',
  upstream_service_time: '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%',
  x_forwarded_for: '%REQ(X-FORWARDED-FOR)%',
  user_agent: '%REQ(USER-AGENT)%',
  request_id: '%REQ(X-REQUEST-ID)%',
  authority: '%REQ(:AUTHORITY)%',
  upstream_host: '%UPSTREAM_HOST%',
  upstream_cluster: '%UPSTREAM_CLUSTER%',
  route_name: '%ROUTE_NAME%',
  downstream_remote_address: '%DOWNSTREAM_REMOTE_ADDRESS%',
  trace_id: '%TRACE_ID%',
};

/** Compiles a text format. Unknown operators throw with the list of those there are. */
export function compileTextFormat(format: string, path: string, options: { emptyText?: string } = {}): TextFormat {
  const empty = options.emptyText ?? '-';
  const parts = parseFormat(format, path);
  return (exchange) => {
    let text = '';
    for (const part of parts) text += typeof part === 'string' ? part : (part(exchange) ?? empty);
    return text;
  };
}

/** Compiles a JSON format: a tree whose text leaves are format strings. A leaf that is one operator keeps its type; absent is null. */
export function compileJsonFormat(format: JsonObject, path: string): (exchange: Exchange) => JsonObject {
  const members = Object.keys(format).map((key) => [key, compileJsonValue(format[key]!, `${path}.${key}`)] as const);
  return (exchange) => {
    const line: Record<string, Json> = {};
    for (const [key, value] of members) line[key] = value(exchange);
    return line;
  };
}

function compileJsonValue(value: Json, path: string): (exchange: Exchange) => Json {
  if (typeof value === 'string') {
    const parts = parseFormat(value, path);
    const [only] = parts;
    if (parts.length === 1 && typeof only === 'function') return (exchange) => only(exchange) ?? null;
    return compileTextFormat(value, path);
  }
  if (Array.isArray(value)) {
    const items = value.map((item: Json, index) => compileJsonValue(item, `${path}[${index}]`));
    return (exchange) => items.map((item) => item(exchange));
  }
  if (typeof value === 'object' && value !== null) return compileJsonFormat(value as JsonObject, path);
  return () => value;
}

function parseFormat(format: string, path: string): (string | Operator)[] {
  const parts: (string | Operator)[] = [];
  let literal = '';
  let at = 0;
  while (at < format.length) {
    if (format[at] !== '%') {
      literal += format[at++];
    } else if (format[at + 1] === '%') {
      literal += '%';
      at += 2;
    } else {
      const match = /%([A-Z0-9_]+)(?:\(([^)]*)\))?(?::(\d+))?%/y;
      match.lastIndex = at;
      const found = match.exec(format);
      if (found === null)
        throw new ConfigError(
          path,
          `an operator looks like %NAME%, %NAME(ARGUMENT)% or %NAME(ARGUMENT):LENGTH%, received ${JSON.stringify(format.slice(at, at + 40))}`,
        );
      if (literal !== '') parts.push(literal);
      literal = '';
      parts.push(compileOperator(found[1]!, found[2], found[3], path));
      at = match.lastIndex;
    }
  }
  if (literal !== '') parts.push(literal);
  return parts;
}

function compileOperator(name: string, argument: string | undefined, length: string | undefined, path: string): Operator {
  const plain = Object.hasOwn(OPERATORS, name) ? OPERATORS[name] : undefined;
  const withArgument = Object.hasOwn(ARGUMENT_OPERATORS, name) ? ARGUMENT_OPERATORS[name] : undefined;
  let operator: Operator;
  if (withArgument !== undefined && (argument !== undefined || plain === undefined)) {
    if (argument === undefined) throw new ConfigError(path, `%${name}% needs an argument in parentheses`);
    operator = withArgument(argument);
  } else if (plain !== undefined) {
    operator = plain;
  } else {
    const known = [...new Set([...Object.keys(OPERATORS), ...Object.keys(ARGUMENT_OPERATORS)])].toSorted();
    throw new ConfigError(path, `unknown operator %${name}%; there are ${known.join(', ')}`);
  }
  if (length === undefined) return operator;
  const lengthMax = Number(length);
  return (exchange) => {
    const value = operator(exchange);
    return typeof value === 'string' ? value.slice(0, lengthMax) : value;
  };
}

const orAbsent = (value: string): string | undefined => (value === '' ? undefined : value);

const OPERATORS: Readonly<Record<string, Operator>> = {
  START_TIME: ({ startWallMs }) => new Date(startWallMs).toISOString(),
  PROTOCOL: ({ request }) => request.connection.protocol,
  RESPONSE_CODE: ({ response }) => response?.status ?? 0,
  RESPONSE_CODE_DETAILS: ({ request }) => orAbsent(request.info.responseDetails),
  // Envoy's flags are a text always: no flag is a dash, in JSON too.
  RESPONSE_FLAGS: ({ request }) => request.info.responseFlags || '-',
  RESPONSE_FLAGS_LONG: ({ request }) => request.info.responseFlags || '-',
  CONNECTION_TERMINATION_DETAILS: () => undefined,
  UPSTREAM_TRANSPORT_FAILURE_REASON: ({ request }) => request.info.filterState?.get('upstreamFailure') as string | undefined,
  BYTES_RECEIVED: ({ request }) => request.info.requestBytes,
  BYTES_SENT: ({ request }) => request.info.responseBytes,
  DURATION: ({ durationMs }) => Math.round(durationMs),
  ROUTE_NAME: ({ request }) => orAbsent(request.info.routeName),
  VIRTUAL_HOST_NAME: ({ request }) => orAbsent(request.info.virtualHostName),
  VIRTUAL_CLUSTER_NAME: () => undefined,
  UPSTREAM_HOST: ({ request }) => request.info.endpoint?.key,
  UPSTREAM_REMOTE_ADDRESS: ({ request }) => request.info.endpoint?.key,
  UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT: ({ request }) => request.info.endpoint?.address.host,
  UPSTREAM_REMOTE_PORT: ({ request }) => request.info.endpoint?.address.port,
  UPSTREAM_LOCAL_ADDRESS: () => undefined,
  UPSTREAM_CLUSTER: ({ request }) => orAbsent(request.info.clusterName),
  UPSTREAM_CLUSTER_RAW: ({ request }) => orAbsent(request.info.clusterName),
  UPSTREAM_REQUEST_ATTEMPT_COUNT: ({ request }) => request.info.attemptCount,
  DOWNSTREAM_REMOTE_ADDRESS: ({ request }) => address(request.connection.remoteAddress, request.connection.remotePort),
  DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT: ({ request }) => request.connection.remoteAddress,
  DOWNSTREAM_REMOTE_PORT: ({ request }) => request.connection.remotePort,
  DOWNSTREAM_DIRECT_REMOTE_ADDRESS: ({ request }) => address(request.connection.remoteAddress, request.connection.remotePort),
  DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT: ({ request }) => request.connection.remoteAddress,
  DOWNSTREAM_LOCAL_ADDRESS: ({ request }) => address(request.connection.localAddress, request.connection.localPort),
  DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT: ({ request }) => request.connection.localAddress,
  DOWNSTREAM_LOCAL_PORT: ({ request }) => request.connection.localPort,
  DOWNSTREAM_PEER_URI_SAN: ({ request }) => request.connection.tls?.peerUri,
  DOWNSTREAM_LOCAL_URI_SAN: ({ request }) => request.connection.tls?.localUri,
  DOWNSTREAM_PEER_SUBJECT: ({ request }) => request.connection.tls?.peerSubject,
  DOWNSTREAM_PEER_FINGERPRINT_256: ({ request }) => request.connection.tls?.peerHash,
  DOWNSTREAM_TLS_VERSION: ({ request }) => request.connection.tls?.version,
  DOWNSTREAM_TLS_CIPHER: ({ request }) => request.connection.tls?.cipher,
  REQUESTED_SERVER_NAME: ({ request }) => request.connection.tls?.sni,
  LOCAL_REPLY_BODY: ({ response }) => response?.body?.whole?.toString() ?? '',
  CONNECTION_ID: ({ request }) => request.connection.id,
  TRACE_ID: ({ request }) => orAbsent(request.info.traceId),
  GRPC_STATUS: ({ response }) => response?.headers.get('grpc-status'),
  GRPC_STATUS_NUMBER: ({ response }) => response?.headers.get('grpc-status'),
  HOSTNAME: () => process.env['HOSTNAME'],
};

const ARGUMENT_OPERATORS: Readonly<Record<string, (argument: string) => Operator>> = {
  REQ: (argument) => headerOperator(argument, ({ request }, name) => requestField(request, name)),
  RESP: (argument) =>
    headerOperator(argument, ({ response }, name) => (name === ':status' ? String(response?.status ?? 0) : response?.headers.joined(name))),
  TRAILER: () => () => undefined,
  START_TIME: (argument) => timeOperator(argument),
  GRPC_STATUS:
    () =>
    ({ response }) =>
      response?.headers.get('grpc-status'),
  FILTER_STATE:
    (argument) =>
    ({ request }) => {
      const value = request.info.filterState?.get(argument.split(':')[0]!);
      return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
    },
  DYNAMIC_METADATA: () => () => undefined,
  UPSTREAM_METADATA: (argument) => {
    const keys = argument.replaceAll(/[[\]" ]/g, '').split(/[:,]/);
    return ({ request }) => leafText(keys.reduce<Json | undefined>((json, key) => member(json, key), request.info.endpoint?.metadata));
  },
  ENVIRONMENT: (argument) => {
    const value = process.env[argument.split(':')[0]!];
    return () => value;
  },
};

function headerOperator(argument: string, read: (exchange: Exchange, name: string) => string | undefined): Operator {
  const [first = '', second] = argument.toLowerCase().split('?');
  if (second === undefined) return (exchange) => read(exchange, first);
  return (exchange) => read(exchange, first) ?? read(exchange, second);
}

function requestField(request: ProxyRequest, name: string): string | undefined {
  switch (name) {
    case ':method':
      return request.method;
    case ':path':
      return request.path;
    case ':authority':
    case 'host':
      return request.authority;
    case ':scheme':
      return request.scheme;
    default:
      return request.headers.joined(name);
  }
}

/** The parts of strftime that people use in access logs, in UTC; `%s` seconds, `%3f` milliseconds. */
function timeOperator(format: string): Operator {
  return ({ startWallMs }) => {
    const iso = new Date(startWallMs).toISOString();
    const values: Readonly<Record<string, string>> = {
      Y: iso.slice(0, 4),
      m: iso.slice(5, 7),
      d: iso.slice(8, 10),
      H: iso.slice(11, 13),
      M: iso.slice(14, 16),
      S: iso.slice(17, 19),
      F: iso.slice(0, 10),
      T: iso.slice(11, 19),
      s: String(Math.floor(startWallMs / 1000)),
      '3f': iso.slice(20, 23),
      z: '+0000',
      Z: 'UTC',
    };
    return format.replaceAll(/%(3f|[A-Za-z])/g, (whole, code: string) => values[code] ?? whole);
  };
}

function address(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function member(json: Json | undefined, key: string): Json | undefined {
  return typeof json === 'object' && json !== null && !Array.isArray(json) ? (json as JsonObject)[key] : undefined;
}

function leafText(json: Json | undefined): string | undefined {
  if (json === undefined || json === null) return undefined;
  return typeof json === 'string' ? json : JSON.stringify(json);
}
