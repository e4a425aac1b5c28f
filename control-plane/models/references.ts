/** What routes and policies name must be there: a problem per name that is not, with the nearest one that is. */
import { didYouMean } from '../../lib/suggest.ts';
import type { HttpRouteSpec } from '../kinds/http-route.ts';
import type { Problem, Resource, ServiceModel } from '../world.ts';

type Services = ReadonlyMap<string, ServiceModel>;

/** Problems of one route or policy against the services that there are. None of them keeps the resource out: what is wrong with it fails for itself. */
export function referenceProblems(resource: Resource, services: Services): Problem[] {
  const problems: Problem[] = [];
  const tell = (field: string, message: string, severity?: 'warning'): void => {
    const base = { origin: resource.origin, resource: `${resource.kind} ${keyOf(resource)}`, field, message };
    problems.push(severity === undefined ? base : { ...base, severity });
  };
  if (resource.kind.endsWith('Route')) checkRoute(resource, services, tell);
  else checkTargets(resource, services, tell);
  return problems;
}

type Tell = (field: string, message: string, severity?: 'warning') => void;

function checkRoute(resource: Resource, services: Services, tell: Tell): void {
  // What is read here is common to the four kinds.
  const spec = resource.spec as unknown as HttpRouteSpec;
  const { namespace } = resource.metadata;
  if (resource.kind === 'TCPRoute' || resource.kind === 'TLSRoute')
    tell('', `${resource.kind} is checked but not applied yet: connections go to the Service's own endpoints`, 'warning');
  let attached = 0;
  for (const [index, parent] of spec.parentRefs.entries()) {
    const field = `spec.parentRefs[${index}]`;
    const key = `${parent.namespace ?? namespace}/${parent.name}`;
    if (parent.kind !== 'Service') {
      const hint = services.has(key) ? '; to attach it to the Service of that name, set group: "" and kind: Service' : '';
      tell(
        field,
        `is a ${parent.kind ?? 'Gateway'}, and a mesh route is attached to a Service: this parent has no effect here${hint}`,
        'warning',
      );
      continue;
    }
    const service = services.get(key);
    if (service === undefined) tell(field, unknownService(key, services));
    else if (parent.port !== undefined && !service.ports.some((port) => port.port === parent.port))
      tell(`${field}.port`, `must be a port of Service ${key} (${portList(service)}), received ${parent.port}`);
    else attached++;
  }
  if (attached > 0 && (spec.hostnames ?? []).length > 0)
    tell('spec.hostnames', 'has no effect on a route that is attached to a Service: the Service decides the host', 'warning');
  for (const [ruleIndex, rule] of (spec.rules ?? []).entries()) {
    const field = `spec.rules[${ruleIndex}]`;
    const redirects = (rule.filters ?? []).some((filter) => filter.type === 'RequestRedirect');
    if ((rule.backendRefs ?? []).length === 0 && !redirects)
      tell(`${field}.backendRefs`, 'is empty: requests that match this rule are answered with 500, as the Gateway API says', 'warning');
    for (const [index, ref] of (rule.backendRefs ?? []).entries())
      checkBackend(`${field}.backendRefs[${index}]`, ref, namespace, services, tell);
    for (const [index, filter] of (rule.filters ?? []).entries()) {
      if (filter.requestMirror !== undefined)
        checkBackend(`${field}.filters[${index}].requestMirror.backendRef`, filter.requestMirror.backendRef, namespace, services, tell);
    }
  }
}

function checkBackend(
  field: string,
  ref: { readonly name: string; readonly namespace?: string | undefined; readonly port?: number | undefined },
  namespace: string,
  services: Services,
  tell: Tell,
): void {
  const key = `${ref.namespace ?? namespace}/${ref.name}`;
  const service = services.get(key);
  if (service === undefined) tell(`${field}.name`, `${unknownService(key, services)}; its share of the requests is answered with 500`);
  else if (ref.port !== undefined && !service.ports.some((port) => port.port === ref.port))
    tell(
      `${field}.port`,
      `must be a port of Service ${key} (${portList(service)}), received ${ref.port}; its share of the requests is answered with 500`,
    );
  else if (ref.port === undefined && service.ports.length > 1)
    tell(
      `${field}.port`,
      `is missing, and Service ${key} has several ports (${portList(service)}); the parent's port is taken where it has the same`,
      'warning',
    );
}

function checkTargets(resource: Resource, services: Services, tell: Tell): void {
  const targets = (resource.spec['targetRefs'] ?? []) as readonly { readonly name: string }[];
  for (const [index, target] of targets.entries()) {
    const key = `${resource.metadata.namespace}/${target.name}`;
    if (!services.has(key)) tell(`spec.targetRefs[${index}].name`, unknownService(key, services));
  }
}

function unknownService(key: string, services: Services): string {
  const [namespace, name] = key.split('/') as [string, string];
  const names = [...services.keys()].filter((other) => other.startsWith(`${namespace}/`)).map((other) => other.slice(namespace.length + 1));
  return `must name a Service that exists: there is no ${key}${didYouMean(name, names)}`;
}

const portList = (service: ServiceModel): string => service.ports.map((port) => port.port).join(', ') || 'it has none';

/** `namespace/name`. */
export function keyOf(resource: Resource): string {
  return `${resource.metadata.namespace}/${resource.metadata.name}`;
}
