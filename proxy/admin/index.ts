/** The registry of admin endpoints. */
import * as actions from './actions.ts';
import { certs } from './certs.ts';
import { clusters, listeners } from './clusters.ts';
import { configDump } from './config-dump.ts';
import { text } from './endpoint.ts';
import { hotRestartVersion, initDump, memory, ready, runtime, serverInfo } from './server-info.ts';
import { stats, statsPrometheus } from './stats.ts';
import type { AdminEndpoint } from './endpoint.ts';

export const ADMIN_ENDPOINTS = {
  certs,
  clusters,
  configDump,
  drainListeners: actions.drainListeners,
  failHealthCheck: actions.failHealthCheck,
  passHealthCheck: actions.passHealthCheck,
  hotRestartVersion,
  initDump,
  listeners,
  logging: actions.logging,
  memory,
  quit: actions.quit,
  ready,
  reopenLogs: actions.reopenLogs,
  resetCounters: actions.resetCounters,
  runtime,
  runtimeModify: actions.runtimeModify,
  serverInfo,
  stats,
  statsPrometheus,
} satisfies Record<string, AdminEndpoint>;

/** The endpoints by path, with `/help` and a home page made from them. */
export function adminRoutes(): ReadonlyMap<string, AdminEndpoint> {
  const endpoints: AdminEndpoint[] = Object.values(ADMIN_ENDPOINTS);
  const help = (): string =>
    `admin commands are:\n${endpoints
      .toSorted((a, b) => (a.path < b.path ? -1 : 1))
      .map((endpoint) => `  ${endpoint.path}${endpoint.mutates ? ' (POST)' : ''}: ${endpoint.help}\n`)
      .join('')}`;
  endpoints.push({ path: '/help', help: 'print out list of admin commands', mutates: false, handle: () => text(help()) });
  const home = (): string => {
    const rows = endpoints.map(({ path, help: words, mutates }) =>
      mutates
        ? `<tr><td><form action="${path.slice(1)}" method="post"><button>${path.slice(1)}</button></form></td><td>${escape(words)}</td></tr>`
        : `<tr><td><a href="${path.slice(1)}">${path.slice(1)}</a></td><td>${escape(words)}</td></tr>`,
    );
    return `<!doctype html><title>meshwork proxy admin</title><h1>meshwork proxy</h1><table>${rows.join('')}</table>\n`;
  };
  endpoints.push({
    path: '/',
    help: 'Admin home page',
    mutates: false,
    handle: () => ({ status: 200, contentType: 'text/html; charset=UTF-8', body: home() }),
  });
  return new Map(endpoints.map((endpoint) => [endpoint.path, endpoint]));
}

function escape(words: string): string {
  return words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
