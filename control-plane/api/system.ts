/** `/api/v1/healthz`, `version`, `mesh`, `problems`: the control plane itself. */
import { readFileSync } from 'node:fs';
import type { Area } from './index.ts';
import { doc } from './schema.ts';

export const system: Area = (app, context) => {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  app.get('/api/v1/healthz', { schema: doc({ tag: 'system', summary: 'Alive.' }) }, () => ({ status: 'ok' }));
  app.get('/healthz', { schema: { hide: true } }, () => ({ status: 'ok' }));
  app.get('/api/v1/version', { schema: doc({ tag: 'system', summary: 'Versions of Meshwork and Node.' }) }, () => ({
    version,
    node: process.versions.node,
    startedAt: new Date(context.startedAtMs).toISOString(),
  }));
  app.get('/api/v1/mesh', { schema: doc({ tag: 'system', summary: 'Settings of the mesh with their defaults, and counts.' }) }, () => {
    const world = context.world.current;
    const { spec: _spec, ...settings } = world.mesh;
    return {
      settings,
      counts: {
        services: world.services.size,
        workloads: world.workloads.size,
        routes: world.httpRoutes.length + world.otherRoutes.length,
        policies: world.policies.length,
        proxies: context.proxies.connected.size,
        problems: world.problems.length,
      },
      addresses: context.addresses(),
    };
  });
  app.get(
    '/api/v1/problems',
    { schema: doc({ tag: 'system', summary: 'What is wrong in the configuration now, by file, line and field.' }) },
    () => ({
      problems: context.world.current.problems.map((problem) => ({ severity: 'error', ...problem, place: placeOf(problem.origin) })),
    }),
  );
};

/** `routes.yaml:12:3`, or the source's name. */
function placeOf(origin: { readonly source: string; readonly file?: string; readonly line?: number; readonly column?: number }): string {
  if (origin.file === undefined) return origin.line === undefined ? origin.source : `${origin.source}:${origin.line}:${origin.column ?? 1}`;
  return origin.line === undefined ? origin.file : `${origin.file}:${origin.line}:${origin.column ?? 1}`;
}
