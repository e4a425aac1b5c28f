/** Client status (CSDS): which client has which resource, served by the control plane for all of its streams and by a sidecar for itself (rule 47). */
import type { Server, ServerDuplexStream, ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import { FETCH_STATUS_METHOD, STREAM_STATUS_METHOD } from './resources/client-status.ts';
import type { ClientState, ResourceState, StatusRequest } from './resources/client-status.ts';
import type { ServerStream } from './grpc-server.ts';
import type { ClientSession } from './session/client.ts';
import { StreamError } from './session/messages.ts';
import type { NodeInfo } from './session/messages.ts';

export type { ClientState, ResourceState } from './resources/client-status.ts';

/** Serves both methods of CSDS. `clients` is asked for every request; contents are left out when the request says so. */
export function serveClientStatus(server: Server, clients: () => Iterable<ClientState>): void {
  const answer = (request: StatusRequest): ClientState[] => {
    const found: ClientState[] = [];
    for (const client of clients()) {
      if (!request.matches(client.node)) continue;
      found.push(request.withContents ? client : { node: client.node, resources: client.resources.map(withoutContent) });
    }
    return found;
  };
  const fetch = (call: ServerUnaryCall<StatusRequest | StreamError, ClientState[]>, done: sendUnaryData<ClientState[]>): void => {
    const { request } = call;
    if (request instanceof StreamError) done({ code: request.code, details: request.message });
    else done(null, answer(request));
  };
  const stream = (call: ServerDuplexStream<StatusRequest | StreamError, ClientState[]>): void => {
    call.on('data', (request: StatusRequest | StreamError) => {
      if (request instanceof StreamError) call.emit('error', { code: request.code, details: request.message });
      else if (!call.write(answer(request))) {
        // A client that asks faster than it reads is not read until it does.
        call.pause();
        call.once('drain', () => call.resume());
      }
    });
    call.on('end', () => call.end());
    // A broken stream leaves nothing behind.
    call.on('error', () => undefined);
  };
  server.register(FETCH_STATUS_METHOD.path, fetch, FETCH_STATUS_METHOD.responseSerialize, FETCH_STATUS_METHOD.requestDeserialize, 'unary');
  server.register(
    STREAM_STATUS_METHOD.path,
    stream,
    STREAM_STATUS_METHOD.responseSerialize,
    STREAM_STATUS_METHOD.requestDeserialize,
    'bidi',
  );
}

/** A stream as its server sees it; undefined before its first request. */
export function serverView(stream: ServerStream): ClientState | undefined {
  if (stream.node === undefined) return undefined;
  const resources: ResourceState[] = [];
  for (const type of stream.status()) {
    const error = type.error === '' ? {} : { error: { message: type.error, version: type.sentVersion } };
    const seen = new Set<string>();
    for (const [name, version] of stream.sent(type.typeUrl)) {
      seen.add(name);
      resources.push({ typeUrl: type.typeUrl, name, version, config: type.state, client: 'UNKNOWN', ...error });
    }
    for (const name of type.names) {
      if (!seen.has(name)) resources.push({ typeUrl: type.typeUrl, name, version: '', config: 'NOT_SENT', client: 'REQUESTED' });
    }
  }
  return { node: stream.node, resources };
}

/** A client as it sees itself. */
export function clientView(node: NodeInfo, session: ClientSession): ClientState {
  const resources: ResourceState[] = [];
  for (const type of session.status()) {
    for (const { name, version, state, error } of type.resources) {
      if (name === '') continue;
      resources.push({
        typeUrl: type.typeUrl,
        name,
        version,
        config: 'UNKNOWN',
        client: state,
        ...(error === '' ? {} : { error: { message: error, version: type.version } }),
      });
    }
  }
  return { node, resources };
}

function withoutContent(resource: ResourceState): ResourceState {
  const { bytes: _bytes, ...rest } = resource;
  return rest;
}
