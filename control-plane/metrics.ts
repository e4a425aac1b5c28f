/** The control plane's own metrics for Prometheus: process metrics, ours, and the names that dashboards for Istio's control plane read. */
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { ListenAddress } from './options.ts';
import { collectProcessMetrics } from './process-metrics.ts';

export interface ControlPlaneMetrics {
  readonly registry: Registry;
  /** A response with resources of one type was handed to a stream. */
  pushed(type: string): void;
  /** A proxy has acknowledged everything of a publish; time since the world changed. */
  converged(ms: number): void;
  rejected(type: string): void;
  /** One publish round over all proxies: time from the change to the start, time it took, and the longest stretch without a pause. */
  published(measured: { waitedMs: number; tookMs: number }): void;
  buildFailed(): void;
  proxies(byFlavour: ReadonlyMap<string, number>): void;
  /** `unauthenticated`, `permission_denied`, `foreign_secret`, `bad_token`, `bad_lease`. */
  refused(reason: string): void;
  issued(): void;
  problems(count: number): void;
  services(count: number): void;
  apiRequest(method: string, route: string, status: number, ms: number): void;
  leases(count: number): void;
  /** Asked at every scrape: when the certificates end that proxies hold, and when the signing root does. Epoch milliseconds. */
  expiries(read: () => { readonly leavesMs: readonly number[]; readonly rootMs: number; readonly nowMs: number }): void;
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** Makes a registry of its own, so that two control planes in one process do not share numbers. */
export function createMetrics(): ControlPlaneMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectProcessMetrics(registry);
  const pushes = new Counter({
    name: 'pilot_xds_pushes',
    help: 'Pushes of resources to proxies, by type.',
    labelNames: ['type'],
    registers,
  });
  const rejects = new Counter({ name: 'pilot_total_xds_rejects', help: 'Refusals (NACK) by proxies.', labelNames: ['type'], registers });
  const convergence = new Histogram({
    name: 'pilot_proxy_convergence_time',
    help: 'Seconds from a change to its acknowledgement by a proxy.',
    buckets: SECONDS,
    registers,
  });
  const debounce = new Histogram({
    name: 'pilot_debounce_time',
    help: 'Seconds that a change waited for others.',
    buckets: SECONDS,
    registers,
  });
  const pushTime = new Histogram({
    name: 'pilot_xds_push_time',
    help: 'Seconds that a publish to all proxies took.',
    buckets: SECONDS,
    registers,
  });
  const connected = new Gauge({ name: 'pilot_xds', help: 'Connected proxies.', registers });
  const byFlavourGauge = new Gauge({
    name: 'meshwork_proxies',
    help: 'Connected proxies, by flavour.',
    labelNames: ['flavour'],
    registers,
  });
  const services = new Gauge({ name: 'pilot_services', help: 'Services in the mesh.', registers });
  const buildFailures = new Counter({
    name: 'meshwork_build_failures_total',
    help: 'Builds that failed; the proxy kept its config.',
    registers,
  });
  const refusals = new Counter({
    name: 'meshwork_refused_total',
    help: 'Callers and requests refused.',
    labelNames: ['reason'],
    registers,
  });
  const issued = new Counter({ name: 'meshwork_certificates_issued_total', help: 'Workload certificates issued.', registers });
  const problems = new Gauge({ name: 'meshwork_config_problems', help: 'Problems in the configuration now.', registers });
  const leases = new Gauge({ name: 'meshwork_leases', help: 'Registered workloads with a running lease.', registers });
  const requests = new Histogram({
    name: 'meshwork_api_request_seconds',
    help: 'API requests.',
    labelNames: ['method', 'route', 'status'],
    buckets: SECONDS,
    registers,
  });
  return {
    registry,
    pushed: (type) => pushes.inc({ type }),
    converged: (ms) => convergence.observe(ms / 1000),
    rejected: (type) => rejects.inc({ type }),
    published({ waitedMs, tookMs }) {
      debounce.observe(waitedMs / 1000);
      pushTime.observe(tookMs / 1000);
    },
    buildFailed: () => buildFailures.inc(),
    proxies(byFlavour) {
      let total = 0;
      byFlavourGauge.reset();
      for (const [flavour, count] of byFlavour) {
        byFlavourGauge.set({ flavour }, count);
        total += count;
      }
      connected.set(total);
    },
    refused: (reason) => refusals.inc({ reason }),
    issued: () => issued.inc(),
    problems: (count) => problems.set(count),
    services: (count) => services.set(count),
    apiRequest: (method, route, status, ms) => requests.observe({ method, route, status: String(status) }, ms / 1000),
    leases: (count) => leases.set(count),
    expiries(read) {
      expiryGauge(
        'meshwork_certificate_expiry_seconds',
        'Seconds until the first certificate of a connected proxy ends.',
        registers,
        () => {
          const { leavesMs, nowMs } = read();
          return leavesMs.length === 0 ? undefined : (Math.min(...leavesMs) - nowMs) / 1000;
        },
      );
      expiryGauge('meshwork_root_expiry_seconds', 'Seconds until the signing root ends.', registers, () => {
        const { rootMs, nowMs } = read();
        return (rootMs - nowMs) / 1000;
      });
    },
  };
}

function expiryGauge(name: string, help: string, registers: Registry[], read: () => number | undefined): void {
  const gauge = new Gauge({
    name,
    help,
    registers,
    collect: () => {
      // Without any there is nothing that ends.
      gauge.set(read() ?? Number.POSITIVE_INFINITY);
    },
  });
}

/** Serves `GET /metrics` and nothing else. Resolves when it listens; rejects when the address is taken. */
export async function serveMetrics(metrics: ControlPlaneMetrics, address: ListenAddress): Promise<Server> {
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000, maxHeaderSize: 16_384 }, (request, response) => {
    if (request.url !== '/metrics' || request.method !== 'GET') {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('only GET /metrics is here\n');
      return;
    }
    metrics.registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': metrics.registry.contentType }).end(text),
      (error: unknown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${String(error)}\n`),
    );
  });
  server.maxConnections = 64;
  server.on('clientError', (_error, socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(address.port, address.host, () => {
      server.off('error', reject);
      server.on('error', () => undefined);
      resolve();
    });
  });
  return server;
}
