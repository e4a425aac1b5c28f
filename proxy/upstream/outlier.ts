/** Outlier detection as a state machine without timers: results go in, ejections come out, time is an argument (Envoy's outlier_detection). */
import type { Random } from '../../lib/random.ts';
import type { OutlierDetection } from '../../xds/snapshot.ts';

/** Why an endpoint was ejected, in Envoy's words for the counters. */
export type EjectionCause =
  | 'consecutive_5xx'
  | 'consecutive_gateway_failure'
  | 'consecutive_local_origin_failure'
  | 'success_rate'
  | 'failure_percentage'
  | 'failed_probe';

/** What the detector keeps per endpoint. Lives on the endpoint, so it survives every push that keeps the address. */
export interface OutlierState {
  consecutive5xx: number;
  consecutiveGateway: number;
  consecutiveLocal: number;
  /** Since the last sweep. */
  successes: number;
  total: number;
  /** How often in a row; multiplies the ejection time, falls by one per quiet interval. */
  ejections: number;
  /** 0 = not ejected. */
  ejectedUntilMs: number;
  ejectedBy: EjectionCause | undefined;
  returnedMs: number;
  /** After an ejection one real request goes first; the others keep away until it is answered. */
  probe: 'none' | 'wanted' | 'under way';
}

export function newOutlierState(): OutlierState {
  return {
    consecutive5xx: 0,
    consecutiveGateway: 0,
    consecutiveLocal: 0,
    successes: 0,
    total: 0,
    ejections: 0,
    ejectedUntilMs: 0,
    ejectedBy: undefined,
    returnedMs: 0,
    probe: 'none',
  };
}

/** Told of what the detector decides. `detected` comes before the limits are asked; exactly one of `ejected` and `spared` may follow. */
export interface OutlierEvents {
  detected(cause: EjectionCause): void;
  ejected(state: OutlierState, cause: EjectionCause): void;
  /** The share of ejected endpoints was reached: it stays in. */
  overflow(): void;
  returned(state: OutlierState): void;
}

/** Judges the endpoints of one cluster. Its members are given anew at each membership change; states of those that stay are theirs. */
export class OutlierDetector {
  #config: OutlierDetection;
  #members: readonly OutlierState[] = [];
  readonly #random: Random;
  readonly #events: OutlierEvents;

  constructor(config: OutlierDetection, random: Random, events: OutlierEvents) {
    this.#config = config;
    this.#random = random;
    this.#events = events;
  }

  apply(config: OutlierDetection): void {
    this.#config = config;
  }

  setMembers(members: readonly OutlierState[]): void {
    this.#members = members;
  }

  get ejectedCount(): number {
    let count = 0;
    for (const member of this.#members) if (member.ejectedUntilMs > 0) count++;
    return count;
  }

  /** An answer came from the endpoint. Answers below 500 are successes. */
  onStatus(state: OutlierState, status: number, nowMs: number): void {
    state.total++;
    state.consecutiveLocal = 0;
    if (status < 500) {
      state.successes++;
      state.consecutive5xx = 0;
      state.consecutiveGateway = 0;
      if (state.probe === 'under way') state.probe = 'none';
      return;
    }
    this.#onFailure(state, status >= 502 && status <= 504, nowMs);
  }

  /** No answer: connect failure, reset or time-out. Counts as a gateway failure unless the two kinds are judged apart. */
  onLocalFailure(state: OutlierState, nowMs: number): void {
    state.total++;
    if (!this.#config.splitExternalLocalOriginErrors) {
      this.#onFailure(state, true, nowMs);
      return;
    }
    state.consecutiveLocal++;
    if (this.#failedProbe(state, nowMs)) return;
    const config = this.#config;
    if (config.consecutiveLocalOriginFailure > 0 && state.consecutiveLocal >= config.consecutiveLocalOriginFailure) {
      state.consecutiveLocal = 0;
      this.#tryEject(state, 'consecutive_local_origin_failure', config.enforcingConsecutiveLocalOriginFailurePercent, nowMs);
    }
  }

  /** Once per interval: lets back in whose time is over, and judges rates over what the interval brought. */
  sweep(nowMs: number): void {
    this.unejectDue(nowMs);
    this.#judgeSuccessRate(nowMs);
    this.#judgeFailurePercentage(nowMs);
    for (const state of this.#members) {
      state.successes = 0;
      state.total = 0;
      if (state.ejectedUntilMs === 0 && state.ejections > 0 && nowMs - state.returnedMs >= this.#config.intervalMs) state.ejections--;
    }
  }

  /** Lets back in whose time is over. Called by `sweep`, and by itself when the owner watches the earliest end. */
  unejectDue(nowMs: number): void {
    for (const state of this.#members) if (state.ejectedUntilMs > 0 && state.ejectedUntilMs <= nowMs) this.#return(state, nowMs);
  }

  /** Health checks say it is well, or the detector was taken away: back in at once. */
  uneject(state: OutlierState, nowMs: number): void {
    if (state.ejectedUntilMs > 0) this.#return(state, nowMs);
  }

  #return(state: OutlierState, nowMs: number): void {
    state.ejectedUntilMs = 0;
    state.ejectedBy = undefined;
    state.returnedMs = nowMs;
    state.consecutive5xx = 0;
    state.consecutiveGateway = 0;
    state.consecutiveLocal = 0;
    state.probe = 'wanted';
    this.#events.returned(state);
  }

  #onFailure(state: OutlierState, gateway: boolean, nowMs: number): void {
    const config = this.#config;
    state.consecutive5xx++;
    state.consecutiveGateway = gateway ? state.consecutiveGateway + 1 : 0;
    if (this.#failedProbe(state, nowMs)) return;
    if (config.consecutiveGatewayFailure > 0 && state.consecutiveGateway >= config.consecutiveGatewayFailure) {
      state.consecutiveGateway = 0;
      this.#tryEject(state, 'consecutive_gateway_failure', config.enforcingConsecutiveGatewayFailurePercent, nowMs);
    }
    if (config.consecutive5xx > 0 && state.consecutive5xx >= config.consecutive5xx) {
      state.consecutive5xx = 0;
      this.#tryEject(state, 'consecutive_5xx', config.enforcingConsecutive5xxPercent, nowMs);
    }
  }

  #failedProbe(state: OutlierState, nowMs: number): boolean {
    if (state.probe !== 'under way') return false;
    state.probe = 'wanted';
    this.#tryEject(state, 'failed_probe', 100, nowMs);
    return true;
  }

  #tryEject(state: OutlierState, cause: EjectionCause, enforcingPercent: number, nowMs: number): void {
    if (state.ejectedUntilMs > 0) return;
    this.#events.detected(cause);
    if (this.#random() * 100 >= enforcingPercent) return;
    if (!this.#mayEject()) {
      this.#events.overflow();
      return;
    }
    const config = this.#config;
    state.ejections++;
    const longestMs = Math.max(config.baseEjectionTimeMs, config.maxEjectionTimeMs);
    const lengthMs = Math.min(config.baseEjectionTimeMs * state.ejections, longestMs) + this.#random() * config.maxEjectionTimeJitterMs;
    state.ejectedUntilMs = nowMs + lengthMs;
    state.ejectedBy = cause;
    state.probe = 'none';
    this.#events.ejected(state, cause);
  }

  /** One more must not make the ejected share larger than the maximum; the first is let through when the configuration says so. */
  #mayEject(): boolean {
    const ejected = this.ejectedCount;
    // The only endpoint is never the one that may always go: failing answers are better than none for the whole ejection time.
    if (ejected === 0 && this.#config.alwaysEjectOneEndpoint && this.#members.length > 1) return true;
    return (ejected + 1) * 100 <= this.#config.maxEjectionPercent * this.#members.length;
  }

  /** Those with enough requests in the interval; too few of them say nothing. */
  #judged(volume: number, hostsMin: number): OutlierState[] {
    const judged = this.#members.filter((state) => state.ejectedUntilMs === 0 && state.total >= volume && state.total > 0);
    return judged.length >= hostsMin ? judged : [];
  }

  #judgeSuccessRate(nowMs: number): void {
    const config = this.#config;
    if (config.enforcingSuccessRatePercent === 0) return;
    const judged = this.#judged(config.successRateRequestVolume, config.successRateMinimumHosts);
    if (judged.length === 0) return;
    const floor = successRateFloor(
      judged.map((state) => (state.successes / state.total) * 100),
      config.successRateStdevFactor,
    );
    for (const state of judged) {
      if ((state.successes / state.total) * 100 < floor) this.#tryEject(state, 'success_rate', config.enforcingSuccessRatePercent, nowMs);
    }
  }

  #judgeFailurePercentage(nowMs: number): void {
    const config = this.#config;
    if (config.enforcingFailurePercentagePercent === 0) return;
    for (const state of this.#judged(config.failurePercentageRequestVolume, config.failurePercentageMinimumHosts)) {
      const failed = ((state.total - state.successes) / state.total) * 100;
      if (failed >= config.failurePercentageThreshold) {
        this.#tryEject(state, 'failure_percentage', config.enforcingFailurePercentagePercent, nowMs);
      }
    }
  }
}

/** Mean minus `stdevFactor` thousandths of a standard deviation, over success rates in percent. */
export function successRateFloor(rates: readonly number[], stdevFactor: number): number {
  const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  const variance = rates.reduce((sum, rate) => sum + (rate - mean) ** 2, 0) / rates.length;
  return mean - Math.sqrt(variance) * (stdevFactor / 1000);
}
