/** Drives a cluster's outlier detector: its timers, its counters and log lines, and the new picker after each decision. */
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import type { OutlierDetection } from '../../xds/snapshot.ts';
import type { ClusterStats } from './cluster-stats.ts';
import type { Member } from './member.ts';
import { OutlierDetector } from './outlier.ts';

/** The cluster as this sees it. */
interface Owner {
  readonly name: string;
  readonly stats: ClusterStats;
  readonly members: ReadonlyMap<string, Member>;
  refresh(): void;
}

interface Deps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export class Ejections {
  readonly #owner: Owner;
  readonly #deps: Deps;
  #config: OutlierDetection | undefined = undefined;
  #detector: OutlierDetector | undefined = undefined;
  #closed = false;
  #stopSweep: (() => void) | undefined = undefined;
  #stopReturn: (() => void) | undefined = undefined;

  constructor(owner: Owner, deps: Deps) {
    this.#owner = owner;
    this.#deps = deps;
  }

  /** Undefined = the cluster has no outlier detection. Made, with its timer, for the first answer: most clusters of a large mesh never have one. */
  get detector(): OutlierDetector | undefined {
    return this.#detector ?? (this.#config === undefined || this.#closed ? undefined : this.#begin(this.#config));
  }

  /** Takes a new configuration; who is ejected stays so, unless detection is taken away. The caller refreshes the picker. */
  configure(config: OutlierDetection | undefined): void {
    // Pushes that change something else must not put off the sweep.
    if (JSON.stringify(config) === JSON.stringify(this.#config)) return;
    this.#config = config;
    this.#stopSweep?.();
    this.#stopSweep = undefined;
    if (config === undefined) {
      this.#stopReturn?.();
      for (const member of this.#owner.members.values()) member.pardon();
      this.#detector = undefined;
      return;
    }
    if (this.#detector === undefined) return;
    this.#detector.apply(config);
    this.#armSweep(config.intervalMs);
  }

  setMembers(members: readonly Member[]): void {
    this.#detector?.setMembers(members.map((member) => member.outlier));
  }

  close(): void {
    this.#closed = true;
    this.#stopSweep?.();
    this.#stopReturn?.();
  }

  #begin(config: OutlierDetection): OutlierDetector {
    const detector = this.#makeDetector(config);
    this.#detector = detector;
    this.setMembers([...this.#owner.members.values()]);
    this.#armSweep(config.intervalMs);
    return detector;
  }

  #armSweep(intervalMs: number): void {
    this.#stopSweep = this.#deps.clock.after(intervalMs, () => {
      this.#detector?.sweep(this.#deps.clock.now());
      this.#armSweep(intervalMs);
    });
  }

  #makeDetector(config: OutlierDetection): OutlierDetector {
    const { stats, name } = this.#owner;
    const { clock, log, random } = this.#deps;
    const keyOf = (state: Member['outlier']): string =>
      [...this.#owner.members.values()].find((member) => member.outlier === state)?.key ?? '';
    return new OutlierDetector(config, random, {
      detected: (cause) => stats.detected(cause),
      overflow: () => stats.ejectionsOverflow.inc(),
      ejected: (state, cause) => {
        stats.ejected(cause);
        const forMs = Math.round(state.ejectedUntilMs - clock.now());
        log.warning('An endpoint was ejected.', { cluster: name, endpoint: keyOf(state), cause, forMs });
        this.#owner.refresh();
        this.#armReturn();
      },
      returned: (state) => {
        log.info('An ejected endpoint is back; one request tries it first.', { cluster: name, endpoint: keyOf(state) });
        this.#owner.refresh();
      },
    });
  }

  /** Wakes when the earliest ejection ends, so that nobody stays out until the next sweep. */
  #armReturn(): void {
    this.#stopReturn?.();
    this.#stopReturn = undefined;
    const ends = [...this.#owner.members.values()].flatMap((member) => (member.ejectedUntilMs > 0 ? [member.ejectedUntilMs] : []));
    if (ends.length === 0) return;
    this.#stopReturn = this.#deps.clock.after(Math.min(...ends) - this.#deps.clock.now(), () => {
      this.#detector?.unejectDue(this.#deps.clock.now());
      this.#armReturn();
    });
  }
}
