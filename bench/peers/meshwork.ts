/** Ours, as people start it: `meshwork proxy -c` with what a mesh has switched on. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VERSION } from '../../cli/version.ts';
import { startPinned } from '../process.ts';
import { envoyBootstrap } from './envoy-config.ts';
import type { Peer } from './peer.ts';

const SCRIPT = (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { scripts: { meshwork: string } })
  .scripts.meshwork;
const MESHWORK = fileURLToPath(new URL('../../cli/meshwork.js', import.meta.url));

export const meshwork: Peer = {
  name: 'meshwork',
  version: () => VERSION,
  can: () => true,
  start: async (options) => {
    const file = join(options.directory, `meshwork-${options.listenPort}.json`);
    writeFileSync(file, envoyBootstrap(options, 0));
    // As the npm script starts it, `node` and flags included; BENCH_NODE_FLAGS adds others, for a profile, BENCH_PROXY_FLAGS some of the proxy's.
    const [, ...words] = SCRIPT.split(' ');
    const flags = [...words.filter((word) => word.startsWith('-')), ...(process.env['BENCH_NODE_FLAGS']?.split(' ') ?? [])];
    return startPinned({
      name: options.name,
      core: options.core,
      command: [
        process.execPath,
        ...flags,
        MESHWORK,
        'proxy',
        '-c',
        file,
        '-l',
        'error',
        ...(process.env['BENCH_PROXY_FLAGS']?.split(' ') ?? []),
      ],
      ports: [options.listenPort],
    });
  },
};
