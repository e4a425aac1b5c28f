/** Caddy: reverse_proxy on one core, no access log. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startPinned } from '../process.ts';
import type { Peer } from './peer.ts';

export const caddy: Peer = {
  name: 'caddy',
  version: () => /(\d+\.\d+\.\d+)/.exec(spawnSync('caddy', ['version'], { encoding: 'utf8' }).stdout ?? '')?.[1],
  can: (hop) => hop === 'plain',
  start: async ({ name, listenPort, upstreamPort, core, directory }) => {
    const home = join(directory, `caddy-${listenPort}`);
    mkdirSync(home, { recursive: true });
    const file = join(home, 'Caddyfile');
    writeFileSync(
      file,
      `{\n  admin off\n  auto_https off\n  persist_config off\n}\nhttp://127.0.0.1:${listenPort} {\n  reverse_proxy 127.0.0.1:${upstreamPort}\n}\n`,
    );
    return startPinned({
      name,
      core,
      command: ['caddy', 'run', '--config', file, '--adapter', 'caddyfile'],
      ports: [listenPort],
      env: { GOMAXPROCS: '1', XDG_DATA_HOME: home, XDG_CONFIG_HOME: home },
    });
  },
};
