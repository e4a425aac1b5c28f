/** The usual ways to proxy in Node, each as a small program of its own. */
import { fileURLToPath } from 'node:url';
import { startPinned } from '../process.ts';
import type { Peer } from './peer.ts';

const PROGRAM = fileURLToPath(new URL('./node-proxy.ts', import.meta.url));

function nodePeer(name: string, library: string): Peer {
  return {
    name,
    version: () => process.versions.node,
    can: (hop) => hop === 'plain',
    start: (options) =>
      startPinned({
        name,
        core: options.core,
        command: [process.execPath, PROGRAM, library, String(options.listenPort), String(options.upstreamPort)],
        ports: [options.listenPort],
      }),
  };
}

export const nodeUndici = nodePeer('node:http + undici', 'undici');
export const nodeHttpProxy = nodePeer('http-proxy-3', 'http-proxy');
