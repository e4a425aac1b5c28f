/** The mesh that the scale bench runs with: services in ten namespaces, ten instances each, all with sidecars; the first of each is written by the API. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';

export interface MeshSize {
  readonly services: number;
  readonly endpoints: number;
}

interface Document {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec: unknown;
}

const NAMESPACES = 10;

export const namespaceOf = (service: number): string => `team-${service % NAMESPACES}`;
export const serviceName = (service: number): string => `service-${service}`;
/** Name of the load assignment that changes when an instance of the service does. */
export const clusterOf = (service: number): string => `outbound|80||${serviceName(service)}.${namespaceOf(service)}.svc.cluster.local`;
/** Node ids of the simulated proxies: the sidecar of an instance, first all first instances, then all second ones. */
export const nodeId = (proxy: number, size: MeshSize): string =>
  `${instanceName(proxy % size.services, Math.floor(proxy / size.services))}.${namespaceOf(proxy % size.services)}`;

const instanceName = (service: number, instance: number): string => `${serviceName(service)}-${instance}`;

/** The instance that the API owns. `weight` tells its versions apart. */
export function apiInstance(service: number, weight: number): Document {
  return instanceOf(service, 0, weight);
}

export const apiInstancePath = (service: number): string =>
  `/api/v1/resources/workloads/${namespaceOf(service)}/${instanceName(service, 0)}`;

/** How a file looks: as a program writes it, JSON on a line for each document, or as a person does. */
export type FileStyle = 'json' | 'block';

/** Writes what does not change as YAML files (JSON is YAML), a hundred services a file. */
export function writeMesh(directory: string, size: MeshSize, style: FileStyle = 'json'): void {
  for (let from = 0; from < size.services; from += 100) {
    const documents: Document[] = [];
    for (let service = from; service < Math.min(size.services, from + 100); service++) {
      documents.push(serviceOf(service));
      for (let instance = 1; instance < size.endpoints / size.services; instance++) documents.push(instanceOf(service, instance, 1));
    }
    const texts = documents.map((document) => (style === 'json' ? `${JSON.stringify(document)}\n` : stringify(document)));
    writeFileSync(join(directory, `services-${String(from).padStart(5, '0')}.yaml`), texts.join('---\n'));
  }
}

function serviceOf(service: number): Document {
  const ports = [{ name: 'http', port: 80, targetPort: 8080 }];
  const metadata = { name: serviceName(service), namespace: namespaceOf(service) };
  return { apiVersion: 'v1', kind: 'Service', metadata, spec: { selector: { app: serviceName(service) }, ports } };
}

function instanceOf(service: number, instance: number, weight: number): Document {
  const number = service * 64 + instance;
  const address = `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`;
  const labels = { app: serviceName(service), version: 'v1' };
  return {
    apiVersion: 'meshwork.dev/v1alpha1',
    kind: 'Workload',
    metadata: { name: instanceName(service, instance), namespace: namespaceOf(service), labels },
    spec: { address, ports: { http: 8080 }, weight, serviceAccount: serviceName(service), sidecar: { inboundPort: 15006 } },
  };
}
