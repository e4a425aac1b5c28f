/**
 * Which roots a peer stands under, and what happens to connections when a root goes: `chainReaches(leaf, roots)` and `createTrustWatch()`.
 * OpenSSL decides about a handshake; this is for questions it is not asked, the trust domain of the anchor and connections that are open already.
 */
import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';

/** Connections that were let in by one set of roots, whatever versions of it there were. */
export interface TrustedConnections {
  add(socket: TLSSocket): void;
}

export interface TrustWatch {
  /**
   * Tells the roots that a secret of this name has now, as DER. When one is gone that was there before, connections whose peer stands under
   * none of the rest are destroyed: a revoked root is revoked for those too who are inside already.
   */
  update(name: string, roots: readonly Buffer[]): TrustedConnections;
}

/** Longest chain of a peer that is followed. */
const CHAIN_MAX = 8;

/** True when the leaf, or one of the intermediates that came with it, is one of the roots or was signed by one. */
export function chainReaches(leaf: X509Certificate, roots: readonly X509Certificate[]): boolean {
  let certificate: X509Certificate | undefined = leaf;
  for (let depth = 0; certificate !== undefined && depth < CHAIN_MAX; depth++) {
    const link: X509Certificate = certificate;
    if (roots.some((root) => link.raw.equals(root.raw) || (link.checkIssued(root) && link.verify(root.publicKey)))) return true;
    certificate = link.issuerCertificate;
  }
  return false;
}

export function createTrustWatch(): TrustWatch {
  const sets = new Map<string, TrustSet>();
  return {
    update(name, roots) {
      let set = sets.get(name);
      if (set === undefined) sets.set(name, (set = new TrustSet()));
      set.update(roots);
      return set;
    },
  };
}

class TrustSet implements TrustedConnections {
  #roots = new Map<string, Buffer>();
  readonly #sockets = new Set<TLSSocket>();

  add(socket: TLSSocket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  update(roots: readonly Buffer[]): void {
    const next = new Map(roots.map((root) => [root.toString('base64'), root]));
    const lost = [...this.#roots.keys()].some((root) => !next.has(root));
    this.#roots = next;
    if (!lost || this.#sockets.size === 0) return;
    const anchors = roots.map((root) => new X509Certificate(root));
    for (const socket of this.#sockets) {
      const leaf = socket.getPeerX509Certificate();
      if (leaf !== undefined && !chainReaches(leaf, anchors)) socket.destroy();
    }
  }
}
