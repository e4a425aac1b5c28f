/** The peers: one line here and one file each. */
import { caddy } from './caddy.ts';
import { envoy } from './envoy.ts';
import { haproxy } from './haproxy.ts';
import { meshwork } from './meshwork.ts';
import { nginx } from './nginx.ts';
import { nodeHttpProxy, nodeUndici } from './node.ts';
import type { Peer } from './peer.ts';

export const PEERS = { meshwork, nginx, haproxy, envoy, caddy, nodeUndici, nodeHttpProxy } as const satisfies Readonly<
  Record<string, Peer>
>;
