/** `/api/v1/services`, `endpoints`, `routes`, `workloads`, `policies`: the merged mesh, for reading. */
import { z } from 'zod';
import { documentOf, etagOf } from '../sources/api.ts';
import type { EndpointModel, Resource, ServiceModel, World } from '../world.ts';
import { ApiProblem, checked } from './problem.ts';
import type { Area } from './index.ts';
import { doc } from './schema.ts';

const query = z.strictObject({ namespace: z.string().optional() });
const endpointQuery = z.strictObject({ namespace: z.string().optional(), service: z.string().optional() });

interface Path {
  Params: { namespace: string; name: string };
}
const PATH = { namespace: 'Namespace', name: 'Name' };

export const services: Area = (app, context) => {
  const world = (): World => context.world.current;
  const inNamespace = (asked: unknown): (<T extends { readonly namespace: string }>(item: T) => boolean) => {
    const { namespace } = checked(query, asked, 'query');
    return (item) => namespace === undefined || item.namespace === namespace;
  };
  app.get(
    '/api/v1/services',
    { schema: doc({ tag: 'mesh', summary: 'Services with their ports and how many instances they have.', query }) },
    (request) => ({
      services: [...world().services.values()].filter(inNamespace(request.query)).map(serviceView),
    }),
  );
  app.get<Path>(
    '/api/v1/services/:namespace/:name',
    { schema: doc({ tag: 'mesh', summary: 'One service with its instances.', path: PATH }) },
    (request) => {
      const { namespace, name } = request.params;
      const service = world().services.get(`${namespace}/${name}`);
      if (service === undefined) throw new ApiProblem(404, `there is no service ${namespace}/${name}`);
      return { ...serviceView(service), instances: service.endpoints.map(endpointView) };
    },
  );
  app.get(
    '/api/v1/endpoints',
    { schema: doc({ tag: 'mesh', summary: 'Every instance behind every service port.', query: endpointQuery }) },
    (request) => {
      const asked = checked(endpointQuery, request.query, 'query');
      const chosen = [...world().services.values()].filter(
        (service) => (asked.namespace ?? service.namespace) === service.namespace && (asked.service ?? service.name) === service.name,
      );
      return {
        endpoints: chosen.flatMap((service) =>
          service.endpoints.map((endpoint) => ({ service: `${service.namespace}/${service.name}`, ...endpointView(endpoint) })),
        ),
      };
    },
  );
  app.get(
    '/api/v1/workloads',
    { schema: doc({ tag: 'mesh', summary: 'Instances outside Kubernetes, from files, the API and registrations.', query }) },
    (request) => ({
      workloads: [...world().workloads.values()].filter(inNamespace(request.query)),
    }),
  );
  app.get<Path>('/api/v1/workloads/:namespace/:name', { schema: doc({ tag: 'mesh', summary: 'One workload.', path: PATH }) }, (request) => {
    const { namespace, name } = request.params;
    const workload = world().workloads.get(`${namespace}/${name}`);
    if (workload === undefined) throw new ApiProblem(404, `there is no workload ${namespace}/${name}`);
    return workload;
  });
  const listOf = (path: string, summary: string, of: (now: World) => readonly Resource[]): void => {
    app.get(`/api/v1/${path}`, { schema: doc({ tag: 'mesh', summary, query }) }, (request) => ({
      [path]: of(world())
        .filter((resource) => inNamespace(request.query)(resource.metadata))
        .map(resourceView),
    }));
  };
  listOf('routes', 'HTTPRoute, GRPCRoute, TCPRoute and TLSRoute resources in effect.', (now) => [...now.httpRoutes, ...now.otherRoutes]);
  listOf('policies', 'BackendPolicy, AuthorizationPolicy, FaultInjection and RateLimit resources in effect.', (now) => now.policies);
};

function serviceView(service: ServiceModel): Record<string, unknown> {
  const instances = new Set(service.endpoints.map((endpoint) => endpoint.workload ?? `${endpoint.address}:${endpoint.targetPort}`));
  return {
    name: service.name,
    namespace: service.namespace,
    labels: service.labels,
    ports: service.ports,
    selector: service.selector ?? null,
    endpoints: service.endpoints.length,
    ready: service.endpoints.filter((endpoint) => endpoint.ready && !endpoint.terminating).length,
    workloads: instances.size,
    origin: service.origin,
  };
}

function endpointView(endpoint: EndpointModel): Record<string, unknown> {
  return { ...endpoint, workload: endpoint.workload ?? null, identity: endpoint.identity ?? null };
}

function resourceView(resource: Resource): Record<string, unknown> {
  return { ...documentOf(resource), meshwork: { origin: resource.origin, etag: etagOf(resource) } };
}
