/**
 * The certificate authority of one trust domain: `createAuthority(options)` -> `issue(spiffeId, …)`, `bundle`, and root rotation by prepare, activate, taint, revoke.
 * Its keys are in memory and in what `exportState` gives; a store keeps that in a file that only its owner can read.
 */
import type { Clock } from '../lib/clock.ts';
import { parseSpiffeId } from '../lib/spiffe.ts';
import { WatchValue } from '../lib/watch.ts';
import type { Watch } from '../lib/watch.ts';
import { sealState } from './authority-state.ts';
import type { AuthorityState, RootPhase, RootRecord } from './authority-state.ts';
import { createBundle } from './bundle.ts';
import type { TrustBundle } from './bundle.ts';
import { AuthorityError, issueLeaf, makeRoot, restoreRoots } from './issuing.ts';
import type { IssueOptions, IssuedCertificate, Root } from './issuing.ts';
import { rootStep } from './rotation.ts';

export type { AuthorityState, RootPhase } from './authority-state.ts';
export { AuthorityError } from './issuing.ts';
export type { AuthorityProblem, IssueOptions, IssuedCertificate } from './issuing.ts';

export interface AuthorityOptions {
  /** `cluster.local`; the host part of every id that is issued. */
  readonly trustDomain: string;
  readonly clock: Clock;
  /** What `exportState` gave before. Absent: a new root is made. Present and not whole: `createAuthority` throws, and makes nothing. */
  readonly state?: unknown;
  /** Called with the new state before a change takes effect; if it throws, the change does not. */
  readonly save?: (state: AuthorityState) => void;
  /** Life of a root. Default ten years. */
  readonly rootTtlMs?: number;
  /** Life of a leaf where the caller asks for none. Default 24 h. */
  readonly leafTtlMs?: number;
  /** Longest life of a leaf. Default 90 days. */
  readonly leafTtlMsMax?: number;
}

/** A root as people may see it: never its key. */
export interface RootInfo {
  readonly id: string;
  readonly phase: RootPhase;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Until when some leaf under it is valid; 0 = it never signed. */
  readonly lastLeafNotAfterMs: number;
}

/** Says that a step of the rotation is safe: which bundle everyone has, and who has not. */
export interface RotationProof {
  /** The bundle's `version` that the acknowledgements are about. */
  readonly bundleVersion: string;
  /** Who has not acknowledged it (for `revoke`: who still uses a leaf of that root). Must be empty. */
  readonly pending: readonly string[];
}

export interface Authority {
  readonly trustDomain: string;
  /** All roots that are trusted now; a listener hears each change. */
  readonly bundle: Watch<TrustBundle>;
  readonly roots: readonly RootInfo[];
  /** Signs a leaf for an id that the caller has authenticated. */
  issue(spiffeId: string, options?: IssueOptions): IssuedCertificate;
  /** True when certificates of that root must be replaced at once. */
  isTainted(issuerId: string): boolean;
  /** What is due by the signing root's age; the caller decides when it is done. */
  dueStep(): 'none' | 'prepare' | 'activate';
  /** Makes the next root and adds it to the bundle; it signs nothing yet. Doing it twice gives the same root. */
  prepare(): RootInfo;
  /** Lets the prepared root sign. Refuses until everyone trusts it. */
  activate(proof: RotationProof): RootInfo;
  /** Marks a root that no longer signs: its leaves are to be replaced now. */
  taint(id: string): RootInfo;
  /** Takes a tainted root out of the bundle. Refuses while leaves of it are in use, unless `force` (a stolen key). */
  revoke(id: string, proof: RotationProof & { readonly force?: boolean }): void;
  exportState(): AuthorityState;
}

const DAY_MS = 24 * 3_600_000;
const ROOT_TTL_MS_DEFAULT = 3650 * DAY_MS;
const LEAF_TTL_MS_DEFAULT = DAY_MS;
const LEAF_TTL_MS_MAX_DEFAULT = 90 * DAY_MS;
/** Roots at one time. */
const ROOTS_MAX = 8;
/** An expired root stays in the bundle for a day, so that what fails is said to be expired and not unknown. */
const EXPIRED_ROOT_KEPT_MS = DAY_MS;

/** Makes or restores an authority. */
export function createAuthority(options: AuthorityOptions): Authority {
  return new LocalAuthority(options);
}

/** An authority whose keys are in this process. */
class LocalAuthority implements Authority {
  readonly trustDomain: string;
  readonly #bundle: WatchValue<TrustBundle>;
  readonly #options: AuthorityOptions;
  #roots: readonly Root[];

  constructor(options: AuthorityOptions) {
    this.#options = options;
    this.trustDomain = parseSpiffeId(`spiffe://${options.trustDomain}`).trustDomain;
    if (options.state === undefined) {
      this.#roots = [this.#newRoot('active')];
      options.save?.(sealState(this.trustDomain, this.#roots));
    } else {
      this.#roots = restoreRoots(options.state, this.trustDomain);
    }
    this.#bundle = new WatchValue(this.#bundleOf(this.#roots));
  }

  get bundle(): Watch<TrustBundle> {
    return this.#bundle;
  }

  get roots(): readonly RootInfo[] {
    return this.#roots.map(infoOf);
  }

  issue(spiffeId: string, issueOptions: IssueOptions = {}): IssuedCertificate {
    const root = this.#active();
    const { leafTtlMs = LEAF_TTL_MS_DEFAULT, leafTtlMsMax = LEAF_TTL_MS_MAX_DEFAULT, clock } = this.#options;
    const ttlMs = Math.min(issueOptions.ttlMs ?? leafTtlMs, leafTtlMsMax);
    const issued = issueLeaf(root, this.trustDomain, spiffeId, issueOptions, clock.wallMs(), ttlMs);
    this.#remember(root, issued.notAfterMs, ttlMs);
    return issued;
  }

  isTainted(issuerId: string): boolean {
    const root = this.#roots.find((candidate) => candidate.id === issuerId);
    return root === undefined || root.phase === 'tainted';
  }

  dueStep(): 'none' | 'prepare' | 'activate' {
    const step = rootStep(this.#active(), this.#options.clock.wallMs());
    const prepared = this.#roots.some((root) => root.phase === 'prepared');
    if (step === 'none' || (step === 'prepare' && prepared)) return 'none';
    return prepared ? 'activate' : 'prepare';
  }

  prepare(): RootInfo {
    const there = this.#roots.find((root) => root.phase === 'prepared');
    if (there !== undefined) return infoOf(there);
    if (this.#roots.length >= ROOTS_MAX) throw new AuthorityError('wrongPhase', `at most ${ROOTS_MAX} roots at one time; revoke one first`);
    const made = this.#newRoot('prepared');
    this.#change([...this.#roots, made]);
    return infoOf(made);
  }

  activate(proof: RotationProof): RootInfo {
    const next = this.#roots.find((root) => root.phase === 'prepared');
    if (next === undefined) throw new AuthorityError('wrongPhase', 'cannot activate: no root is prepared');
    this.#checkProof('activate', proof);
    this.#setPhases({ [this.#active().id]: 'retired', [next.id]: 'active' });
    return infoOf(this.#find(next.id));
  }

  taint(id: string): RootInfo {
    const root = this.#find(id);
    if (root.phase !== 'retired' && root.phase !== 'tainted') {
      throw new AuthorityError('wrongPhase', `cannot taint root ${id}: it is ${root.phase}; prepare and activate another one first`);
    }
    this.#setPhases({ [id]: 'tainted' });
    return infoOf(this.#find(id));
  }

  revoke(id: string, proof: RotationProof & { readonly force?: boolean }): void {
    const root = this.#find(id);
    if (root.phase !== 'tainted') throw new AuthorityError('wrongPhase', `cannot revoke root ${id}: it is ${root.phase}; taint it first`);
    if (proof.force !== true) this.#checkProof('revoke', proof);
    this.#change(this.#roots.filter((candidate) => candidate.id !== id));
  }

  exportState(): AuthorityState {
    return sealState(this.trustDomain, this.#roots);
  }

  /** Saves first, then changes: a state that could not be kept is not acted on. */
  #change(next: readonly Root[]): void {
    const nowMs = this.#options.clock.wallMs();
    const kept = next.filter((root) => root.phase === 'active' || root.notAfterMs + EXPIRED_ROOT_KEPT_MS > nowMs);
    this.#options.save?.(sealState(this.trustDomain, kept));
    this.#roots = kept;
    const updated = this.#bundleOf(kept);
    if (updated.version !== this.#bundle.current.version) this.#bundle.set(updated);
  }

  #setPhases(phases: Readonly<Record<string, RootPhase>>): void {
    this.#change(this.#roots.map((root) => ({ ...root, phase: phases[root.id] ?? root.phase })));
  }

  /** The latest end of a leaf is remembered per root, rounded up by half a life: one save per half life, not one per certificate. */
  #remember(root: Root, notAfterMs: number, ttlMs: number): void {
    if (notAfterMs <= root.lastLeafNotAfterMs) return;
    const lastLeafNotAfterMs = Math.min(root.notAfterMs, notAfterMs + ttlMs / 2);
    this.#change(this.#roots.map((candidate) => (candidate.id === root.id ? { ...candidate, lastLeafNotAfterMs } : candidate)));
  }

  #checkProof(step: string, proof: RotationProof): void {
    const { version } = this.#bundle.current;
    if (proof.bundleVersion !== version) {
      throw new AuthorityError(
        'notAcknowledged',
        `cannot ${step}: the acknowledgements are for bundle ${proof.bundleVersion}, the bundle is ${version}`,
      );
    }
    if (proof.pending.length > 0) {
      const some = `${proof.pending.slice(0, 5).join(', ')}${proof.pending.length > 5 ? ', …' : ''}`;
      throw new AuthorityError('notAcknowledged', `cannot ${step}: ${proof.pending.length} not there yet: ${some}`);
    }
  }

  #newRoot(phase: RootPhase): Root {
    return makeRoot(this.trustDomain, this.#options.clock.wallMs(), this.#options.rootTtlMs ?? ROOT_TTL_MS_DEFAULT, phase);
  }

  #bundleOf(roots: readonly Root[]): TrustBundle {
    return createBundle(
      this.trustDomain,
      roots.map((root) => root.der),
    );
  }

  #active(): Root {
    return this.#roots.find((root) => root.phase === 'active')!;
  }

  #find(id: string): Root {
    const root = this.#roots.find((candidate) => candidate.id === id);
    if (root === undefined)
      throw new AuthorityError('wrongPhase', `there is no root ${id}; there are ${this.#roots.map((r) => r.id).join(', ')}`);
    return root;
  }
}

function infoOf(root: RootRecord): RootInfo {
  const { id, phase, notBeforeMs, notAfterMs, lastLeafNotAfterMs } = root;
  return { id, phase, notBeforeMs, notAfterMs, lastLeafNotAfterMs };
}
