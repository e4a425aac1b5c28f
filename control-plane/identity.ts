/** Who calls, and what it may have: authentication by certificate, lease credential or join token, the check of a node's claim, and each proxy's own certificate. */
import type { Authority } from '../certs/authority.ts';
import type { IssuedCertificate } from '../certs/authority.ts';
import { peerIdentity } from '../certs/identity.ts';
import type { JoinTokens } from '../certs/join-token.ts';
import { expiryState, renewalDelayMs } from '../certs/rotation.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import { parseSpiffeId, workloadId, workloadOf } from '../lib/spiffe.ts';
import type { Secret } from '../xds/snapshot.ts';
import { CODES, StreamError } from '../xds/session/messages.ts';
import type { EncodedResource, NodeInfo } from '../xds/session/messages.ts';
import type { ControlPlaneMetrics } from './metrics.ts';
import { isLeaseCredential, proveLease } from './lease-credential.ts';
import { createKeeper } from './secrets.ts';
import type { HeldCertificate, SecretKeeper } from './secrets.ts';
import type { Registrations } from './sources/registrations.ts';
import type { World } from './world.ts';

/** What a connection shows before anything of the node is known. */
export interface Credentials {
  /** Over TLS; in plaintext only loopback callers get this far. */
  readonly secure: boolean;
  /** DER of a client certificate whose chain was verified against the bundle; undefined = none. */
  readonly certificate: Uint8Array | undefined;
  /** From `authorization: Bearer …`. */
  readonly token: string | undefined;
  readonly peer: string;
}

/** A caller, proven. */
export interface Caller {
  /** SPIFFE id; undefined only for plaintext callers without a token. */
  readonly identity: string | undefined;
  readonly authentication: 'certificate' | 'lease' | 'token' | 'none';
  /** `namespace/name` that the join token or the lease is for. */
  readonly workload: string | undefined;
  /** Id of the lease that was shown; the caller is known while it lives. */
  readonly lease?: string;
  /** The certificate that was shown. */
  readonly certificate: HeldCertificate | undefined;
  readonly peer: string;
}

export interface CertificateView {
  readonly proxy: string;
  readonly spiffeId: string;
  readonly serial: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly expiresInMs: number;
  /** `urgent` below a quarter of its life: the renewal at one half has not worked. */
  readonly state: 'fine' | 'renewalDue' | 'urgent' | 'expired';
  readonly connected: boolean;
}

export interface Identities {
  readonly authority: Authority;
  readonly tokens: JoinTokens;
  /** SPIFFE id of the control plane itself. */
  readonly serverId: string;
  /** Throws a StreamError: UNAUTHENTICATED for callers that prove nothing or show a used, expired or unknown token, or one of a lease that has ended. */
  authenticate(credentials: Credentials): Caller;
  /** Throws a StreamError with PERMISSION_DENIED when the node says it is somebody else than the caller has proven to be. */
  checkClaim(caller: Caller, node: NodeInfo, world: World): void;
  /** The keeper of a proxy's own certificate; the same one when the proxy comes back soon. */
  keeperFor(proxyId: string, caller: Caller): SecretKeeper;
  /** The trust bundle as a secret. */
  roots(): EncodedResource;
  /** Certificates that proxies hold now, without keys. */
  certificates(): readonly CertificateView[];
  /** Makes new certificates for all proxies; answers for how many. */
  rotateAll(): number;
  /** A certificate for the control plane's own TLS port. */
  issueServer(dnsNames: readonly string[], ipAddresses: readonly string[]): IssuedCertificate;
  close(): void;
}

export interface IdentitiesDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: ControlPlaneMetrics;
  readonly authority: Authority;
  readonly tokens: JoinTokens;
  readonly leases: Pick<Registrations, 'holder'>;
  readonly certificateTtlMs: () => number;
  readonly encodeSecret: (secret: Secret) => EncodedResource;
  /** A proxy has another certificate than before. */
  readonly renewed: (proxyId: string) => void;
}

export const BUNDLE_SECRET = 'ROOTCA';
const CONTROL_PLANE = { namespace: 'meshwork-system', serviceAccount: 'control-plane' };
/** Keepers of disconnected proxies beyond this go, the oldest first. */
const KEEPERS_MAX = 20_000;

export function createIdentities(deps: IdentitiesDeps): Identities {
  const { authority, clock, log, metrics } = deps;
  const keepers = new Map<string, SecretKeeper>();
  let bundle: { readonly pem: string; readonly secret: EncodedResource } | undefined;
  const serverId = workloadId(authority.trustDomain, CONTROL_PLANE.namespace, CONTROL_PLANE.serviceAccount);
  const refuse = (code: number, reason: string, message: string, fields: Record<string, unknown>): never => {
    metrics.refused(reason);
    log.warning('A caller was refused.', { reason: message, ...fields });
    throw new StreamError(code, message);
  };
  return {
    authority,
    tokens: deps.tokens,
    serverId,
    authenticate(credentials) {
      const { peer } = credentials;
      if (credentials.certificate !== undefined) return byCertificate(credentials.certificate, peer);
      if (credentials.token !== undefined)
        return isLeaseCredential(credentials.token) ? byLease(credentials.token, peer) : byToken(credentials.token, peer);
      if (!credentials.secure) return { identity: undefined, authentication: 'none', workload: undefined, certificate: undefined, peer };
      return refuse(
        CODES.unauthenticated,
        'unauthenticated',
        'this port takes callers with a certificate that this mesh has issued, a join token or a lease credential; received none',
        { peer },
      );
    },
    checkClaim(caller, node, world) {
      const wrong = claimProblem(caller, node, world);
      if (wrong !== undefined)
        refuse(CODES.permissionDenied, 'permission_denied', wrong, { peer: caller.peer, identity: caller.identity, node: node.id });
    },
    keeperFor(proxyId, caller) {
      const key = `${proxyId} ${caller.identity}`;
      let keeper = keepers.get(key);
      if (keeper === undefined) {
        keeper = createKeeper({
          ...deps,
          proxyId,
          identity: caller.identity,
          held: caller.certificate,
          idle: () => keepers.delete(key),
          delayMs: (held) => renewalDelayMs(held, clock.wallMs(), deps.random),
        });
        keepers.set(key, keeper);
        if (keepers.size > KEEPERS_MAX) forgetOne(keepers);
      }
      return keeper;
    },
    roots() {
      const { pem } = authority.bundle.current;
      // Asked for at every publish, for every proxy.
      if (bundle?.pem !== pem) {
        const content = { kind: 'validation' as const, rootsPem: pem, matchSubjectAltNames: [], trustUnverified: false };
        bundle = { pem, secret: deps.encodeSecret({ name: BUNDLE_SECRET, content }) };
      }
      return bundle.secret;
    },
    certificates() {
      const nowMs = clock.wallMs();
      return [...keepers.values()].flatMap((keeper) => {
        const held = keeper.view();
        if (held === undefined) return [];
        return {
          proxy: keeper.proxyId,
          spiffeId: keeper.identity ?? '',
          serial: held.serial,
          notBefore: new Date(held.notBeforeMs).toISOString(),
          notAfter: new Date(held.notAfterMs).toISOString(),
          expiresInMs: Math.max(0, Math.round(held.notAfterMs - nowMs)),
          state: expiryState(held, nowMs),
          connected: keeper.connected,
        };
      });
    },
    rotateAll() {
      let count = 0;
      for (const keeper of keepers.values()) if (keeper.connected && keeper.renew()) count++;
      return count;
    },
    issueServer: (dnsNames, ipAddresses) => authority.issue(serverId, { dnsNames, ipAddresses }),
    close() {
      for (const keeper of keepers.values()) keeper.close();
      keepers.clear();
    },
  };

  function byCertificate(der: Uint8Array, peer: string): Caller {
    try {
      const { uri, id, hash, serialHex, notBeforeMs, notAfterMs } = peerIdentity(der, clock.wallMs());
      if (id.trustDomain !== authority.trustDomain) throw new Error(`${uri} is not of the trust domain ${authority.trustDomain}`);
      return {
        identity: uri,
        authentication: 'certificate',
        workload: undefined,
        certificate: { hash, serial: serialHex, notBeforeMs, notAfterMs },
        peer,
      };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return refuse(CODES.unauthenticated, 'unauthenticated', `the client certificate is refused: ${reason}`, { peer });
    }
  }

  function byLease(token: string, peer: string): Caller {
    const proof = proveLease(token, deps.leases);
    if (!proof.ok) return refuse(CODES.unauthenticated, 'bad_lease', proof.message, { peer });
    const { id, namespace, name, serviceAccount } = proof.registration;
    return {
      identity: workloadId(authority.trustDomain, namespace, serviceAccount),
      authentication: 'lease',
      workload: `${namespace}/${name}`,
      lease: id,
      certificate: undefined,
      peer,
    };
  }

  function byToken(token: string, peer: string): Caller {
    const redemption = deps.tokens.redeem(token);
    if (!redemption.ok)
      return refuse(CODES.unauthenticated, 'bad_token', redemption.message, {
        peer,
        token: redemption.id ?? 'malformed',
        problem: redemption.reason,
      });
    const { spiffeId, attributes } = redemption.binding;
    return { identity: spiffeId, authentication: 'token', workload: attributes['workload'], certificate: undefined, peer };
  }
}

/** Says what does not fit between what is proven and what is claimed, or undefined. Nothing can be checked for callers that proved nothing. */
export function claimProblem(caller: Caller, node: NodeInfo, world: World): string | undefined {
  if (caller.identity === undefined) return undefined;
  const proven = workloadOf(parseSpiffeId(caller.identity));
  if (proven === undefined) return `the identity ${caller.identity} names no namespace and service account`;
  const claimed = claimedWorkload(node);
  const says = (what: string, value: string): string =>
    `the node ${JSON.stringify(node.id.slice(0, 200))} claims ${what} ${JSON.stringify(value.slice(0, 200))}, but the caller is ${caller.identity}`;
  const { NAMESPACE: namespace, SERVICE_ACCOUNT: account } = node.metadata as Record<string, unknown>;
  if (typeof namespace === 'string' && namespace !== proven.namespace) return says('the namespace', namespace);
  if (typeof account === 'string' && account !== proven.serviceAccount) return says('the service account', account);
  if (claimed === undefined)
    return caller.workload === undefined ? undefined : says('no workload, where the credential names', caller.workload);
  if (claimed.namespace !== proven.namespace) return says('the namespace', claimed.namespace);
  const key = `${claimed.namespace}/${claimed.name}`;
  if (caller.workload !== undefined && caller.workload !== key) return says('the workload', key);
  const known = world.workloads.get(key);
  if (known !== undefined && known.serviceAccount !== proven.serviceAccount)
    return says(`the workload ${key} with the service account`, known.serviceAccount);
  return undefined;
}

/** `<workload>.<namespace>`, also as the third part of an id by Istio's convention (`sidecar~ip~workload.namespace~domain`). */
export function claimedWorkload(node: NodeInfo): { readonly namespace: string; readonly name: string } | undefined {
  const parts = node.id.split('~');
  const text = parts.length === 4 ? parts[2]! : node.id;
  const match = /^([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?)\.([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)$/.exec(text);
  return match === null ? undefined : { name: match[1]!, namespace: match[2]! };
}

function forgetOne(keepers: Map<string, SecretKeeper>): void {
  for (const [key, keeper] of keepers) {
    if (keeper.connected) continue;
    keeper.close();
    keepers.delete(key);
    return;
  }
}
