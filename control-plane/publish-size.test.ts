/** What one endpoint's change costs on the wire must not depend on how large the mesh is. */
import { test, expect } from '@jest/globals';
import { build } from './build/index.ts';
import { createEncoder } from './encode.ts';
import { NodeResourceSet } from './resource-set.ts';
import { nodeOf, worldOf } from './testing.ts';
import { ManualClock } from '../lib/clock.ts';
import { encodeDeltaResponse } from '../xds/resources/discovery.ts';
import type { DeltaResponse } from '../xds/session/messages.ts';
import { ServerSession } from '../xds/session/server.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '../xds/session/type-urls.ts';

const INSTANCES = 3;

/** Names are as long in a small mesh as in a large one. */
const named = (service: number): string => `service-${String(service).padStart(4, '0')}`;

function meshOf(services: number, firstWeight: number): string {
  const documents: string[] = [];
  for (let service = 0; service < services; service++) {
    const name = named(service);
    documents.push(
      `{apiVersion: v1, kind: Service, metadata: {name: ${name}}, spec: {selector: {app: ${name}}, ports: [{port: 80, targetPort: 8080}]}}`,
    );
    for (let instance = 0; instance < INSTANCES; instance++) {
      const metadata = `{name: ${name}-${instance}, labels: {app: ${name}}}`;
      const weight = service === 0 && instance === 0 ? firstWeight : 1;
      const spec = `{address: 10.1.${service}.${instance + 1}, ports: {http: 8080}, weight: ${weight}, sidecar: {}}`;
      documents.push(`{apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: ${metadata}, spec: ${spec}}`);
    }
  }
  return documents.join('\n---\n');
}

/** Bytes of the responses that a proxy with everything gets when one endpoint's weight changes. */
function bytesOfChange(services: number): { readonly bytes: number; readonly resources: readonly string[] } {
  const encoder = createEncoder(build);
  const setOf = (weight: number, before?: NodeResourceSet): NodeResourceSet => {
    const world = worldOf(meshOf(services, weight));
    return new NodeResourceSet(encoder.encode(world, nodeOf(world, `default/${named(1)}-0`)), before);
  };
  const session = new ServerSession({ mode: 'delta', clock: new ManualClock() });
  const request = { mode: 'delta', unsubscribe: [], initialVersions: new Map<string, string>(), responseNonce: '' } as const;
  const node = {
    id: `${named(1)}-0.default`,
    cluster: '',
    metadata: {},
    locality: { region: '', zone: '', subZone: '' },
    userAgentName: '',
    userAgentVersion: '',
    clientFeatures: [],
  };
  const drain = (): DeltaResponse[] => {
    const sent: DeltaResponse[] = [];
    for (let response = session.next(); response !== undefined; response = session.next()) {
      if (response.mode !== 'delta') throw new Error('a delta session answers in delta');
      sent.push(response);
      session.receive({ ...request, typeUrl: response.typeUrl, subscribe: [], responseNonce: response.nonce });
    }
    return sent;
  };
  const before = setOf(1);
  session.receive({ ...request, node, typeUrl: CLUSTER_TYPE, subscribe: [] });
  session.publish(before);
  session.receive({ ...request, typeUrl: LISTENER_TYPE, subscribe: [] });
  session.receive({ ...request, typeUrl: ROUTE_TYPE, subscribe: [...before.names(ROUTE_TYPE)] });
  session.receive({ ...request, typeUrl: ENDPOINT_TYPE, subscribe: [...before.names(ENDPOINT_TYPE)] });
  const first = drain();
  expect(first.flatMap(({ typeUrl, resources }) => (typeUrl === ENDPOINT_TYPE ? resources : []))).toHaveLength(services);

  session.publish(setOf(2, before));
  const sent = drain();
  return {
    // Nonces have the same number of digits in both.
    bytes: sent.reduce((total, response) => total + encodeDeltaResponse(response).length, 0),
    resources: sent.flatMap(({ resources }) => resources.map((resource) => resource.name)),
  };
}

test('a change of an endpoint costs a proxy the same bytes in a mesh of any size', () => {
  const small = bytesOfChange(4);
  const large = bytesOfChange(100);

  expect(large.resources).toEqual([`outbound|80||${named(0)}.default.svc.cluster.local`]);
  expect(large).toEqual(small);
});
