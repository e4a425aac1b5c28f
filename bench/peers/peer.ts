/** What a peer of the bench is: something that can stand in the proxy's place. */
import type { Measured } from '../process.ts';

/** Certificates in files, PEM. */
export interface TlsFiles {
  readonly chain: string;
  readonly key: string;
  /** Chain and key in one file. */
  readonly both: string;
  readonly roots: string;
}

export type Hop =
  /** Plain in, plain out. */
  | { readonly kind: 'plain' }
  /** Plain in, mTLS out. */
  | { readonly kind: 'originate'; readonly tls: TlsFiles }
  /** mTLS in, plain out. */
  | { readonly kind: 'terminate'; readonly tls: TlsFiles };

export interface PeerStart {
  readonly name: string;
  readonly hop: Hop;
  readonly listenPort: number;
  readonly upstreamPort: number;
  readonly core: number;
  /** Scratch directory of this run. */
  readonly directory: string;
}

export interface Peer {
  readonly name: string;
  /** Version, or undefined when it is not on this machine. */
  version(): string | undefined;
  /** False where the peer cannot do this kind of hop. */
  can(hop: Hop['kind']): boolean;
  start(options: PeerStart): Promise<Measured>;
}
