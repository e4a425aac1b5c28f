/** Keeps one proxy's certificate: issues it, renews it at half of its life, and never lets its key out of the process but to its owner. */
import { createHash } from 'node:crypto';
import type { Authority } from '../certs/authority.ts';
import { decodeCertificates } from '../certs/pem.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Secret } from '../xds/snapshot.ts';
import { SECRET_TYPE } from '../xds/session/type-urls.ts';
import type { EncodedResource } from '../xds/session/messages.ts';
import type { ControlPlaneMetrics } from './metrics.ts';

export const OWN_SECRET = 'default';

/** A certificate that a proxy has. Times are epoch milliseconds. */
export interface HeldCertificate {
  /** SHA-256, hex. */
  readonly hash: string;
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface SecretKeeper {
  readonly proxyId: string;
  readonly identity: string | undefined;
  /** Streams use it now. */
  readonly connected: boolean;
  /** Its certificate as a secret; nothing for a caller without identity, or one that may not have a new one and has none. */
  secret(): EncodedResource | undefined;
  /** The next `secret` is a new certificate. False when there is none to renew, or it may not be. */
  renew(): boolean;
  view(): HeldCertificate | undefined;
  /** Counts a stream in; the answer counts it out. While no stream's `mayRenew` says yes, the certificate stays as it is and ends when it ends. */
  use(mayRenew: () => boolean): () => void;
  close(): void;
}

export interface KeeperDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: ControlPlaneMetrics;
  readonly authority: Authority;
  readonly certificateTtlMs: () => number;
  readonly encodeSecret: (secret: Secret) => EncodedResource;
  readonly renewed: (proxyId: string) => void;
  readonly proxyId: string;
  readonly identity: string | undefined;
  /** The certificate that the proxy showed: from before this process. */
  readonly held: HeldCertificate | undefined;
  /** Its certificate is due and no stream uses it: the keeper may go. */
  readonly idle: () => void;
  /** How long until a certificate is to be renewed. */
  readonly delayMs: (held: HeldCertificate) => number;
}

/** A renewal that failed (the root has ended, the store is full) is tried again after this. */
const RETRY_MS = 10_000;

export function createKeeper(deps: KeeperDeps): SecretKeeper {
  const { clock, identity, log } = deps;
  let held = deps.held;
  let issuerId: string | undefined;
  let encoded: EncodedResource | undefined = held === undefined ? undefined : takenOver(held, (version) => issue(version));
  let stale = false;
  const uses = new Set<{ readonly mayRenew: () => boolean }>();
  const mayRenew = (): boolean => [...uses].some((use) => use.mayRenew());
  let closed = false;
  let cancel = (): void => undefined;
  const arm = (ms: number): void => {
    cancel();
    if (!closed) cancel = clock.after(ms, due);
  };
  /** The version is the certificate's own hash, so that the next process can tell from what a proxy shows whether it has the newest. */
  const issue = (version?: string): EncodedResource => {
    const certificate = deps.authority.issue(identity!, { ttlMs: deps.certificateTtlMs() });
    const content = { kind: 'certificate', chainPem: certificate.chainPem, keyPem: certificate.keyPem ?? '' } as const;
    const { serial, notBeforeMs, notAfterMs } = certificate;
    held = { hash: hashOf(certificate.chainPem), serial, notBeforeMs, notAfterMs };
    issuerId = certificate.issuerId;
    stale = false;
    encoded = { ...deps.encodeSecret({ name: OWN_SECRET, content }), version: version ?? versionOf(held.hash) };
    deps.metrics.issued();
    arm(deps.delayMs(held));
    return encoded;
  };
  /** Issuing is left to the push, which does not do a thousand of them at once. */
  const renew = (): boolean => {
    if (identity === undefined || !mayRenew()) return false;
    stale = true;
    deps.renewed(deps.proxyId);
    return true;
  };
  const renewed = (): EncodedResource => {
    try {
      return issue();
    } catch (error) {
      arm(RETRY_MS);
      if (encoded === undefined) throw error;
      log.error('A certificate could not be renewed; the proxy keeps the one it has.', { proxy: deps.proxyId, identity, error });
      return encoded;
    }
  };
  function due(): void {
    if (uses.size > 0) {
      // Who may not have a new one now may be let in again before this one ends.
      if (!renew()) arm(RETRY_MS);
      return;
    }
    // Nobody is there to take a new one; it is made when the proxy comes back.
    encoded = undefined;
    held = undefined;
    deps.idle();
  }
  if (held !== undefined) arm(deps.delayMs(held));
  return {
    proxyId: deps.proxyId,
    identity,
    get connected() {
      return uses.size > 0;
    },
    secret() {
      if (identity === undefined) return undefined;
      const tainted = issuerId !== undefined && deps.authority.isTainted(issuerId);
      const due = encoded === undefined || stale || tainted;
      return due && mayRenew() ? renewed() : encoded;
    },
    renew,
    view: () => held,
    use(may) {
      const use = { mayRenew: may };
      uses.add(use);
      return () => void uses.delete(use);
    },
    close() {
      closed = true;
      cancel();
    },
  };
}

/**
 * The secret of a proxy that came back with a certificate from before this process. A client that says it has this version is sent nothing;
 * one that asks for the content gets a new certificate under the same version, since keys are nowhere stored.
 */
function takenOver(held: HeldCertificate, issue: (version: string) => EncodedResource): EncodedResource {
  const version = versionOf(held.hash);
  let made: Uint8Array | undefined;
  return {
    name: OWN_SECRET,
    version,
    typeUrl: SECRET_TYPE,
    get bytes() {
      made ??= issue(version).bytes;
      return made;
    },
  };
}

function hashOf(chainPem: string): string {
  return createHash('sha256').update(decodeCertificates(chainPem)[0]!).digest('hex');
}

function versionOf(hash: string): string {
  return `cert-${hash.slice(0, 24)}`;
}
