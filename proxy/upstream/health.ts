/** Active health checks: asks each endpoint at intervals and decides by thresholds who is well (Envoy's health_checks; HTTP and TCP). */
import type { Clock } from '../../lib/clock.ts';
import type { Random } from '../../lib/random.ts';
import type { HealthCheck } from '../../xds/snapshot.ts';
import type { Endpoint } from './endpoint.ts';

/** Asks once. True = well. May reject, which counts as not well; must end soon after the signal aborts. */
export type Probe = (endpoint: Endpoint, check: HealthCheck['check'], signal: AbortSignal) => Promise<boolean>;

export interface HealthDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly probe: Probe;
  /** Told of each probe and its outcome. */
  readonly counts?: HealthCounts;
}

/** `unreachable`: no answer came, in time or at all. */
export interface HealthCounts {
  asked(): void;
  answered(outcome: 'well' | 'ill' | 'unreachable'): void;
}

/** Counts answers in a row. Starts ill: an endpoint gets requests after its first good answer; later it takes `healthyThreshold` of them. */
export class HealthState {
  healthy = false;
  #everHealthy = false;
  #run = 0;

  /** Answers whether `healthy` changed. */
  observe(well: boolean, check: Pick<HealthCheck, 'healthyThreshold' | 'unhealthyThreshold'>): boolean {
    if (well === this.healthy) {
      this.#run = 0;
      return false;
    }
    this.#run++;
    const needed = well ? (this.#everHealthy ? check.healthyThreshold : 1) : check.unhealthyThreshold;
    if (this.#run < needed) return false;
    this.healthy = well;
    this.#everHealthy ||= well;
    this.#run = 0;
    return true;
  }
}

interface Watched {
  readonly states: readonly HealthState[];
  readonly stops: (() => void)[];
  stopped: boolean;
}

/** Runs a cluster's checks over its endpoints. An endpoint is well when all checks say so. */
export class HealthChecks {
  readonly #checks: readonly HealthCheck[];
  readonly #deps: HealthDeps;
  readonly #changed: (endpoint: Endpoint, healthy: boolean) => void;
  /** True while requests flow to the cluster: without traffic checks are rarer. */
  readonly #busy: () => boolean;
  readonly #watched = new Map<Endpoint, Watched>();

  constructor(
    checks: readonly HealthCheck[],
    deps: HealthDeps,
    busy: () => boolean,
    changed: (endpoint: Endpoint, healthy: boolean) => void,
  ) {
    this.#checks = checks;
    this.#deps = deps;
    this.#busy = busy;
    this.#changed = changed;
  }

  /** The endpoints to watch from now on. New ones are asked at once. */
  setEndpoints(endpoints: readonly Endpoint[]): void {
    const wanted = new Set(endpoints);
    for (const [endpoint, watched] of this.#watched) if (!wanted.has(endpoint)) this.#forget(endpoint, watched);
    for (const endpoint of endpoints) {
      if (this.#watched.has(endpoint)) continue;
      const watched: Watched = { states: this.#checks.map(() => new HealthState()), stops: [], stopped: false };
      this.#watched.set(endpoint, watched);
      this.#checks.forEach((_, i) => void this.#ask(endpoint, watched, i));
    }
  }

  close(): void {
    for (const [endpoint, watched] of this.#watched) this.#forget(endpoint, watched);
  }

  #forget(endpoint: Endpoint, watched: Watched): void {
    watched.stopped = true;
    for (const stop of watched.stops) stop();
    this.#watched.delete(endpoint);
  }

  async #ask(endpoint: Endpoint, watched: Watched, index: number): Promise<void> {
    const check = this.#checks[index]!;
    const { clock, random, probe, counts } = this.#deps;
    counts?.asked();
    const abort = new AbortController();
    const cancel = clock.after(check.timeoutMs, () => abort.abort());
    watched.stops[index] = () => {
      cancel();
      abort.abort();
    };
    const timedOut = new Promise<undefined>((resolve) => abort.signal.addEventListener('abort', () => resolve(undefined), { once: true }));
    const answer = await Promise.race([probe(endpoint, check.check, abort.signal).catch(() => undefined), timedOut]);
    const well = answer === true;
    cancel();
    if (watched.stopped) return;
    counts?.answered(well ? 'well' : answer === undefined ? 'unreachable' : 'ill');
    const before = watched.states.every((state) => state.healthy);
    watched.states[index]!.observe(well, check);
    const after = watched.states.every((state) => state.healthy);
    if (before !== after) this.#changed(endpoint, after);
    const waitMs = this.#busy() ? check.intervalMs : Math.max(check.intervalMs, check.noTrafficIntervalMs);
    // A tenth of spread keeps many proxies from asking one endpoint in step.
    watched.stops[index] = clock.after(waitMs * (0.95 + random() / 10), () => void this.#ask(endpoint, watched, index));
  }
}
