/** What a Service says that leads nowhere: told once, as warnings, since the rest of it works. */
import type { ServiceSpec } from '../kinds/service.ts';
import type { Problem, Resource, WorkloadModel } from '../world.ts';

/** `workloads` are those that its selector finds. */
export function serviceProblems(resource: Resource, workloads: readonly WorkloadModel[]): Problem[] {
  const spec = resource.spec as ServiceSpec;
  const problems: Problem[] = [];
  const tell = (field: string, message: string): void => {
    const { namespace, name } = resource.metadata;
    problems.push({ origin: resource.origin, resource: `Service ${namespace}/${name}`, field, message, severity: 'warning' });
  };
  if (spec.type === 'ExternalName')
    tell('spec.type', 'is ExternalName, which is not routed: requests to its name leave the mesh as to any unknown host');
  for (const [index, port] of (spec.ports ?? []).entries()) {
    const field = `spec.ports[${index}]`;
    if (port.protocol !== undefined && port.protocol !== 'TCP')
      tell(`${field}.protocol`, `is ${port.protocol}, which is not proxied: this port is left out`);
    else if (
      typeof port.targetPort === 'string' &&
      workloads.length > 0 &&
      workloads.every((workload) => workload.ports[String(port.targetPort)] === undefined)
    ) {
      const names = [...new Set(workloads.flatMap((workload) => Object.keys(workload.ports)))].sort().slice(0, 10);
      tell(
        `${field}.targetPort`,
        `names the port "${port.targetPort}", which none of the ${workloads.length} selected workloads has (theirs: ${names.join(', ') || 'none'})`,
      );
    }
  }
  return problems;
}
