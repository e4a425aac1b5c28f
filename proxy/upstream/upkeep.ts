/** What runs beside a cluster's requests: DNS that finds its endpoints, and health checks that ask them. */
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import type { Cluster, LoadAssignment } from '../../xds/snapshot.ts';
import type { ClusterStats } from './cluster-stats.ts';
import { DnsMembership, systemResolve } from './dns.ts';
import type { Resolve } from './dns.ts';
import { HealthChecks } from './health.ts';
import type { HealthCounts, Probe } from './health.ts';
import type { Scope } from '../../lib/metrics-scope.ts';
import type { Member } from './member.ts';

export interface UpkeepDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Default: the operating system's resolver. */
  readonly resolve?: Resolve;
  /** Default: HTTP requests and TCP connects without TLS. */
  readonly probe?: Probe;
}

interface Owner {
  readonly name: string;
  readonly members: ReadonlyMap<string, Member>;
  readonly stats: ClusterStats;
  assign(assignment: LoadAssignment): void;
  refresh(): void;
  busy(): boolean;
}

/** The HTTP client for probes is loaded with the first check, since most proxies have none. */
const lazyProbe: Probe = async (endpoint, check, signal) => (await import('./probe.ts')).plainProbe()(endpoint, check, signal);

export class Upkeep {
  readonly #owner: Owner;
  readonly #deps: UpkeepDeps;
  #dns: DnsMembership | undefined = undefined;
  #dnsSettings = '';
  #checks: HealthChecks | undefined = undefined;
  #checkSettings = '[]';

  constructor(owner: Owner, deps: UpkeepDeps) {
    this.#owner = owner;
    this.#deps = deps;
  }

  /** Starts, restarts or stops what the configuration asks for; what did not change goes on. */
  configure(config: Cluster): void {
    const named = config.type === 'STRICT_DNS' || config.type === 'LOGICAL_DNS';
    const dns = named
      ? JSON.stringify([config.type, config.loadAssignment, config.dnsRefreshMs, config.respectDnsTtl, config.dnsLookupFamily])
      : '';
    if (dns !== this.#dnsSettings) {
      this.#dnsSettings = dns;
      this.#dns?.close();
      const deps = { ...this.#deps, resolve: this.#deps.resolve ?? systemResolve };
      this.#dns = named ? new DnsMembership(config, deps, this.#owner.stats, (assignment) => this.#owner.assign(assignment)) : undefined;
    }
    const checks = JSON.stringify(config.healthChecks);
    if (checks !== this.#checkSettings) {
      this.#checkSettings = checks;
      this.#checks?.close();
      this.#checks = config.healthChecks.length === 0 ? undefined : this.#makeChecks(config);
      for (const member of this.#owner.members.values()) member.failedCheck = this.#checks !== undefined;
      this.membersChanged();
    }
  }

  /** A new endpoint waits for its first good answer when there are checks. */
  joined(member: Member): void {
    member.failedCheck = this.#checks !== undefined;
  }

  membersChanged(): void {
    if (this.#checks === undefined) return;
    this.#checks.setEndpoints([...this.#owner.members.values()]);
    this.#countHealthy();
  }

  #countHealthy(): void {
    const healthy = [...this.#owner.members.values()].filter((member) => !member.failedCheck).length;
    this.#owner.stats.scope.gauge('health_check.healthy').set(healthy);
  }

  close(): void {
    this.#dns?.close();
    this.#checks?.close();
  }

  #makeChecks(config: Cluster): HealthChecks {
    const { clock, random, log } = this.#deps;
    const probe = this.#deps.probe ?? lazyProbe;
    return new HealthChecks(
      config.healthChecks,
      { clock, random, probe, counts: healthCounts(this.#owner.stats.scope) },
      () => this.#owner.busy(),
      (endpoint, healthy) => {
        const member = this.#owner.members.get(endpoint.key);
        if (member === undefined) return;
        member.failedCheck = !healthy;
        this.#countHealthy();
        log.info(healthy ? 'An endpoint passes its health checks.' : 'An endpoint fails its health checks.', {
          cluster: this.#owner.name,
          endpoint: endpoint.key,
        });
        this.#owner.refresh();
      },
    );
  }
}

/** Envoy's `health_check.*` of a cluster. */
function healthCounts(scope: Scope): HealthCounts {
  const counter = (name: string): { inc(): void } => scope.counter(`health_check.${name}`);
  const [asked, well, ill, unreachable] = [counter('attempt'), counter('success'), counter('failure'), counter('network_failure')];
  return {
    asked: () => asked.inc(),
    answered: (outcome) => {
      (outcome === 'well' ? well : ill).inc();
      if (outcome === 'unreachable') unreachable.inc();
    },
  };
}
