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
  /** Undefined = the cluster has no outlier detection. */
  detector: OutlierDetector | undefined = undefined;
  readonly #owner: Owner;
  readonly #deps: Deps;
  #settings: string | undefined = undefined;
  #stopSweep: (() => void) | undefined = undefined;
  #stopReturn: (() => void) | undefined = undefined;

  constructor(owner: Owner, deps: Deps) {
    this.#owner = owner;
    this.#deps = deps;
  }

  /** Takes a new configuration; who is ejected stays so, unless detection is taken away. The caller refreshes the picker. */
  configure(config: OutlierDetection | undefined): void {
    // Pushes that change something else must not put off the sweep.
    const settings = JSON.stringify(config);
    if (settings === this.#settings) return;
    this.#settings = settings;
    this.#stopSweep?.();
    this.#stopSweep = undefined;
    if (config === undefined) {
      this.#stopReturn?.();
      for (const member of this.#owner.members.values()) {
        member.outlier.ejectedUntilMs = 0;
        member.outlier.probe = 'none';
      }
      this.detector = undefined;
      return;
    }
    if (this.detector === undefined) this.detector = this.#makeDetector(config);
    else this.detector.apply(config);
    const sweep = (): void => {
      this.detector?.sweep(this.#deps.clock.now());
      this.#stopSweep = this.#deps.clock.after(config.intervalMs, sweep);
    };
    this.#stopSweep = this.#deps.clock.after(config.intervalMs, sweep);
  }

  setMembers(members: readonly Member[]): void {
    this.detector?.setMembers(members.map((member) => member.outlier));
  }

  close(): void {
    this.#stopSweep?.();
    this.#stopReturn?.();
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
      this.detector?.unejectDue(this.#deps.clock.now());
      this.#armReturn();
    });
  }
}
