/** Ours, as people start it: `meshwork proxy -c` with what a mesh has switched on. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VERSION } from '../../cli/version.ts';
import { startPinned } from '../process.ts';
import { envoyBootstrap } from './envoy-config.ts';
import type { Peer } from './peer.ts';

const MESHWORK = fileURLToPath(new URL('../../cli/meshwork.ts', import.meta.url));

export const meshwork: Peer = {
  name: 'meshwork',
  version: () => VERSION,
  can: () => true,
  start: async (options) => {
    const file = join(options.directory, `meshwork-${options.listenPort}.json`);
    writeFileSync(file, envoyBootstrap(options, 0));
    const profile = process.env['BENCH_NODE_FLAGS']?.split(' ') ?? [];
    return startPinned({
      name: options.name,
      core: options.core,
      command: [process.execPath, ...profile, MESHWORK, 'proxy', '-c', file, '-l', 'error'],
      ports: [options.listenPort],
    });
  },
};
