/**
 * TLS settings ready for use: `createTlsContexts({ clock })` -> `downstream(tls, secrets, path)` and `upstream(tls, secrets, path)`.
 * Equal material gives the same object, so a rotation is a new context and pools see it by comparing; a bad secret throws `ConfigError` and changes nothing.
 */
import type { Buffer } from 'node:buffer';
import { X509Certificate, constants, createHash, createPrivateKey } from 'node:crypto';
import type { Socket } from 'node:net';
import { createSecureContext, createServer } from 'node:tls';
import type { SecureContext, SecureContextOptions, Server, TLSSocket } from 'node:tls';
import { parseCertificate } from '../../certs/certificate.ts';
import { decodeCertificates } from '../../certs/pem.ts';
import type { Clock } from '../../lib/clock.ts';
import type { CommonTls, DownstreamTls, SanMatch, Secret, SecretRef, UpstreamTls } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import { createPeerCheck } from './peer.ts';
import type { PeerCheck } from './peer.ts';
import { compileSanMatches, sanText } from './san-match.ts';
import { createTrustWatch } from './trust.ts';
import type { TrustWatch, TrustedConnections } from './trust.ts';

interface TlsContext {
  readonly clock: Clock;
  readonly handshakeTimeoutMs: number;
  /** Hash of everything that went in. */
  readonly key: string;
  /** First URI name of our own certificate. */
  readonly localUri: string | undefined;
  /** End of our own certificate, epoch milliseconds; `Infinity` without one. */
  readonly localNotAfterMs: number;
  /** Undefined = the peer's certificate is not looked at, and the peer stays unknown. */
  readonly checkPeer: PeerCheck | undefined;
  /** Where connections are entered whose peer was believed; undefined for roots that are in the resource itself. */
  readonly trusted: TrustedConnections | undefined;
}

export interface DownstreamTlsContext extends TlsContext {
  readonly requireClientCertificate: boolean;
  /** Never listens: accepted sockets are handed to it. */
  readonly server: Server;
  /** Handshakes under way by the socket below them. */
  readonly pending: WeakMap<Socket, PendingHandshake>;
  /** Handshakes under way in all contexts together. */
  readonly handshakes: { current: number; readonly max: number };
}

export interface UpstreamTlsContext extends TlsContext {
  readonly secureContext: SecureContext;
  readonly alpn: readonly string[];
  /** Empty = none, or the host name where `autoHostSni` is set. */
  readonly sni: string;
  readonly autoHostSni: boolean;
}

export interface PendingHandshake {
  secured(socket: TLSSocket): void;
  failed(error: Error): void;
}

export interface TlsContextsOptions {
  readonly clock: Clock;
  /** Longest handshake, ms. Default 10,000. */
  readonly handshakeTimeoutMs?: number;
  /** Most handshakes of clients under way at one time; more are refused at once, since each takes milliseconds of the one thread. Default 1,024. */
  readonly handshakesMax?: number;
}

type Secrets = ReadonlyMap<string, Secret>;

export interface TlsContexts {
  /** For a filter chain. `path` names the resource and field for messages. */
  downstream(tls: DownstreamTls, secrets: Secrets, path: string): DownstreamTlsContext;
  /** For a cluster. */
  upstream(tls: UpstreamTls, secrets: Secrets, path: string): UpstreamTlsContext;
}

const HANDSHAKE_TIMEOUT_MS_DEFAULT = 10_000;
const HANDSHAKES_MAX_DEFAULT = 1024;
/** Contexts kept; the one not asked for longest goes first. Connections keep theirs. */
const CONTEXTS_MAX = 512;
/** Forward secrecy and authenticated encryption only (bad inputs 88). */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');
const CURVES = 'X25519:P-256:P-384';

/** Makes the place where contexts are built and kept. */
export function createTlsContexts(options: TlsContextsOptions): TlsContexts {
  const shared: Shared = {
    clock: options.clock,
    handshakeTimeoutMs: options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS_DEFAULT,
    handshakes: { current: 0, max: options.handshakesMax ?? HANDSHAKES_MAX_DEFAULT },
    trust: createTrustWatch(),
  };
  const downstreams = new Map<string, DownstreamTlsContext>();
  const upstreams = new Map<string, UpstreamTlsContext>();
  return {
    downstream(tls, secrets, path) {
      const material = collect(tls, secrets, path);
      const key = keyOf(['downstream', material, tls.alpn, tls.minVersion, tls.maxVersion, tls.requireClientCertificate]);
      return recall(downstreams, key, () => buildDownstream(tls, material, key, path, shared));
    },
    upstream(tls, secrets, path) {
      const material = collect(tls, secrets, path);
      const key = keyOf(['upstream', material, tls.alpn, tls.minVersion, tls.maxVersion, tls.sni, tls.autoHostSni]);
      return recall(upstreams, key, () => buildUpstream(tls, material, key, path, shared));
    },
  };
}

/** Names of the secrets that a resource needs and that are not there yet: what a new listener or cluster has to wait for. */
export function missingSecrets(tls: CommonTls, secrets: Secrets): string[] {
  const refs = tls.validation === undefined ? tls.certificates : [...tls.certificates, tls.validation];
  return refs.flatMap((ref) => (ref.kind === 'sds' && !secrets.has(ref.name) ? [ref.name] : []));
}

// ---- building -------------------------------------------------------------------------------------------------------

/** What the secrets say, as text: everything that the hash covers. */
interface Material {
  readonly pairs: readonly { readonly chainPem: string; readonly keyPem: string }[];
  /** `name` is that of the secret; empty for one in the resource itself. */
  readonly validation: { readonly name: string; readonly rootsPem: string; readonly trustUnverified: boolean } | undefined;
  readonly names: readonly SanMatch[];
}

type Shared = Pick<DownstreamTlsContext, 'clock' | 'handshakeTimeoutMs' | 'handshakes'> & { readonly trust: TrustWatch };

function buildDownstream(tls: DownstreamTls, material: Material, key: string, path: string, shared: Shared): DownstreamTlsContext {
  if (material.pairs.length === 0) throw new ConfigError(`${path}.certificates`, 'a server needs a certificate, received none');
  if (tls.requireClientCertificate && material.validation === undefined) {
    throw new ConfigError(
      `${path}.validation`,
      'a client certificate is required, so there must be roots to check it against, received none',
    );
  }
  const common = buildCommon(tls, material, key, path, shared, 'client');
  const server = guard(`${path}.certificates`, () =>
    createServer({
      ...common.options,
      // Asking is OpenSSL's part, refusing is ours: it then happens in one place with a reason.
      requestCert: material.validation !== undefined,
      rejectUnauthorized: false,
      sessionIdContext: key.slice(0, 32),
      ...(tls.alpn.length === 0 ? {} : { ALPNProtocols: [...tls.alpn] }),
    }),
  );
  const pending = new WeakMap<Socket, PendingHandshake>();
  const find = (socket: TLSSocket): PendingHandshake | undefined => {
    const below = (socket as unknown as { readonly _parent?: Socket })._parent;
    return below === undefined ? undefined : pending.get(below);
  };
  server.on('secureConnection', (socket) => {
    const handshake = find(socket);
    if (handshake === undefined) socket.destroy();
    else handshake.secured(socket);
  });
  server.on('tlsClientError', (error, socket) => {
    find(socket)?.failed(error);
    socket.destroy();
  });
  return { ...common.context, requireClientCertificate: tls.requireClientCertificate, server, pending, handshakes: shared.handshakes };
}

function buildUpstream(tls: UpstreamTls, material: Material, key: string, path: string, shared: Shared): UpstreamTlsContext {
  const common = buildCommon(tls, material, key, path, shared, 'server');
  const secureContext = guard(`${path}.certificates`, () => createSecureContext(common.options));
  return { ...common.context, secureContext, alpn: tls.alpn, sni: tls.sni, autoHostSni: tls.autoHostSni };
}

function buildCommon(tls: CommonTls, material: Material, key: string, path: string, shared: Shared, peer: 'client' | 'server') {
  if (tls.minVersion > tls.maxVersion) throw new ConfigError(path, `min version ${tls.minVersion} is above max version ${tls.maxVersion}`);
  material.pairs.forEach((pair, index) => checkPair(pair.chainPem, pair.keyPem, `${path}.certificates[${index}]`));
  const { validation } = material;
  const roots =
    validation === undefined ? [] : guard(`${path}.validation`, () => readRoots(validation.rootsPem, validation.trustUnverified));
  const names = compileSanMatches(material.names, `${path}.matchSubjectAltNames`);
  const leaf = material.pairs[0] === undefined ? undefined : parseCertificate(decodeCertificates(material.pairs[0].chainPem)[0]!);
  const localName = leaf?.sans.find((san) => san.type === 'URI');
  const options: SecureContextOptions = {
    minVersion: tls.minVersion === 'TLSv1_3' ? 'TLSv1.3' : 'TLSv1.2',
    maxVersion: tls.maxVersion === 'TLSv1_3' ? 'TLSv1.3' : 'TLSv1.2',
    ciphers: CIPHERS,
    ecdhCurve: CURVES,
    // A resumed session skips the certificate, and with it everything that changed since: there are none (bad inputs 89).
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_CIPHER_SERVER_PREFERENCE,
    cert: material.pairs.map((pair) => pair.chainPem),
    key: material.pairs.map((pair) => pair.keyPem),
    // Without roots of its own Node would fall back to the public ones.
    ca: validation === undefined || validation.rootsPem === '' ? [] : validation.rootsPem,
    allowPartialTrustChain: true,
  };
  const { clock, handshakeTimeoutMs, trust } = shared;
  const context: TlsContext = {
    clock,
    handshakeTimeoutMs,
    key,
    localUri: localName === undefined ? undefined : sanText(localName),
    localNotAfterMs: leaf?.notAfterMs ?? Number.POSITIVE_INFINITY,
    // Unverified peers are let in without a name: whatever their certificate says, nobody vouched for it.
    checkPeer: validation === undefined || validation.trustUnverified ? undefined : createPeerCheck({ roots, names, peer }),
    trusted:
      validation === undefined || validation.trustUnverified || validation.name === '' ? undefined : trust.update(validation.name, roots),
  };
  return { options, context };
}

/** Key and leaf belong together, and each certificate of the chain was issued by the next. */
function checkPair(chainPem: string, keyPem: string, path: string): void {
  guard(path, () => {
    const chain = decodeCertificates(chainPem).map((der) => new X509Certificate(der));
    if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]+-----END [A-Z ]*PRIVATE KEY-----/.test(keyPem))
      throw new Error('the private key is missing or cut off');
    const key = createPrivateKey(keyPem);
    if (!chain[0]!.checkPrivateKey(key))
      throw new Error('the private key does not belong to the certificate (the leaf comes first in the chain)');
    for (let i = 1; i < chain.length; i++) {
      if (!chain[i - 1]!.checkIssued(chain[i]!)) throw new Error(`certificate ${i + 1} of the chain did not issue certificate ${i}`);
    }
  });
}

function readRoots(rootsPem: string, trustUnverified: boolean): Buffer[] {
  if (rootsPem === '' && trustUnverified) return [];
  const roots = decodeCertificates(rootsPem);
  // Public bundles hold roots of every age: OpenSSL has to read them, our strict parser need not.
  for (const root of roots) void new X509Certificate(root);
  return roots;
}

function collect(tls: CommonTls, secrets: Secrets, path: string): Material {
  const pairs = tls.certificates.map((ref, index) => {
    const place = `${path}.certificates[${index}]`;
    const { content, name } = resolve(ref, secrets, place);
    if (content.kind !== 'certificate') throw new ConfigError(place, `secret "${name}" should be a certificate, received ${content.kind}`);
    if (content.chainPem === '' || content.keyPem === '') throw new ConfigError(place, `secret "${name}" has no certificate or no key`);
    return { chainPem: content.chainPem, keyPem: content.keyPem };
  });
  if (tls.validation === undefined) {
    if (tls.matchSubjectAltNames.length > 0)
      throw new ConfigError(`${path}.matchSubjectAltNames`, 'names can only be believed with roots to check them against');
    return { pairs, validation: undefined, names: [] };
  }
  const place = `${path}.validation`;
  const { content, name } = resolve(tls.validation, secrets, place);
  if (content.kind !== 'validation') throw new ConfigError(place, `secret "${name}" should be a set of roots, received ${content.kind}`);
  if (content.rootsPem === '' && !content.trustUnverified) throw new ConfigError(place, `secret "${name}" has no roots`);
  return {
    pairs,
    validation: {
      name: tls.validation.kind === 'sds' ? tls.validation.name : '',
      rootsPem: content.rootsPem,
      trustUnverified: content.trustUnverified,
    },
    names: [...tls.matchSubjectAltNames, ...content.matchSubjectAltNames],
  };
}

function resolve(ref: SecretRef, secrets: Secrets, path: string): Secret {
  const secret = ref.kind === 'inline' ? ref.secret : secrets.get(ref.name);
  if (secret === undefined) throw new ConfigError(path, `secret "${ref.kind === 'sds' ? ref.name : ''}" is not there yet`);
  return secret;
}

/** Turns what crypto throws into an error with a place. Messages of OpenSSL name rules and never hold key material. */
function guard<T>(path: string, fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    throw error instanceof ConfigError ? error : new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}

const keyOf = (parts: unknown): string => createHash('sha256').update(JSON.stringify(parts)).digest('hex');

function recall<T>(kept: Map<string, T>, key: string, make: () => T): T {
  const there = kept.get(key) ?? make();
  kept.delete(key);
  kept.set(key, there);
  if (kept.size > CONTEXTS_MAX) kept.delete(kept.keys().next().value!);
  return there;
}
