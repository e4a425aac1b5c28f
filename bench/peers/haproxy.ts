/** HAProxy: one thread, keep-alive to the upstream. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startPinned } from '../process.ts';
import type { Peer } from './peer.ts';

export const haproxy: Peer = {
  name: 'haproxy',
  version: () => /version (\S+)/.exec(spawnSync('haproxy', ['-v'], { encoding: 'utf8' }).stdout ?? '')?.[1],
  can: () => true,
  start: async ({ name, hop, listenPort, upstreamPort, core, directory }) => {
    const home = join(directory, `haproxy-${listenPort}`);
    mkdirSync(home, { recursive: true });
    const file = join(home, 'haproxy.cfg');
    const accept = hop.kind === 'terminate' ? ` ssl crt ${hop.tls.both} ca-file ${hop.tls.roots} verify required ssl-min-ver TLSv1.3` : '';
    const connect =
      hop.kind === 'originate'
        ? ` ssl crt ${hop.tls.both} ca-file ${hop.tls.roots} verify required sni str(mesh.test) verifyhost mesh.test ssl-min-ver TLSv1.3 no-ssl-reuse`
        : '';
    writeFileSync(
      file,
      `global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout client 300s
  timeout server 300s
  timeout connect 5s
  http-reuse always
frontend in
  bind 127.0.0.1:${listenPort}${accept} backlog 4096
  default_backend app
backend app
  server app 127.0.0.1:${upstreamPort}${connect}
`,
    );
    return startPinned({ name, core, command: ['haproxy', '-f', file, '-db'], ports: [listenPort] });
  },
};
