/** Envoy: one worker, from the same bootstrap that we start with. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startPinned } from '../process.ts';
import { envoyBootstrap } from './envoy-config.ts';
import type { Peer } from './peer.ts';

const ENVOY = process.env['ENVOY'] ?? 'envoy';

export const envoy: Peer = {
  name: 'envoy',
  version: () => /version: [^/]+\/(\d+\.\d+\.\d+)/.exec(spawnSync(ENVOY, ['--version'], { encoding: 'utf8' }).stdout ?? '')?.[1],
  can: () => true,
  start: async (options) => {
    const file = join(options.directory, `envoy-${options.listenPort}.json`);
    writeFileSync(file, envoyBootstrap(options, 0));
    return startPinned({
      name: options.name,
      core: options.core,
      command: [ENVOY, '-c', file, '--concurrency', '1', '--use-dynamic-base-id', '-l', 'error'],
      ports: [options.listenPort],
    });
  },
};
