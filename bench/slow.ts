/** Slow clients beside good ones: slow heads, slow bodies, slow readers, and all of them mixed. `npm run bench:slow`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PEERS } from './peers/index.ts';
import { describeMachine } from './report.ts';
import { holds, slowRound } from './slow/round.ts';
import type { SlowKind, SlowResult } from './slow/round.ts';

const { values } = parseArgs({
  options: {
    attackers: { type: 'string', default: '5000' },
    rate: { type: 'string', default: '500' },
    kinds: { type: 'string', default: 'heads,bodies,readers,mixed' },
    /** Another proxy, to see what of it is the machine, the application and the good client themselves. */
    peer: { type: 'string', default: 'meshwork' },
    /** How long the good clients are measured alone, and beside the attackers: past every deadline that sends a slow client away. */
    alone: { type: 'string', default: '35' },
    beside: { type: 'string', default: '25' },
  },
});

const peer = Object.entries(PEERS).find(([name]) => name === values.peer)?.[1];
if (peer?.version() === undefined)
  throw new Error(`--peer ${values.peer}: not one of ${Object.keys(PEERS).join(', ')}, or not on this machine`);
const directory = mkdtempSync(join(tmpdir(), 'meshwork-slow-'));
const results: SlowResult[] = [];
try {
  for (const kind of values.kinds.split(',') as SlowKind[]) {
    const result = await slowRound({
      kind,
      attackers: Number(values.attackers),
      rate: Number(values.rate),
      aloneSeconds: Number(values.alone),
      besideSeconds: Number(values.beside),
      directory,
      peer,
    });
    results.push(result);
    process.stderr.write(
      `${kind}: p99 ${result.alone.p99Ms.toFixed(2)} ms alone, ${result.beside.p99Ms.toFixed(2)} ms beside ${result.attackers.connected} attackers (${result.ratio.toFixed(2)} times; median second ${result.alone.secondsP99Ms.toFixed(2)} and ${result.beside.secondsP99Ms.toFixed(2)} ms), ${result.beside.failed} of ${result.beside.requests} failed: ${holds(result) ? 'holds' : 'MISSED'}\n`,
    );
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
process.stdout.write(
  `${JSON.stringify({ machine: describeMachine(), peer: peer.name, version: peer.version(), attackers: Number(values.attackers), rate: Number(values.rate), results }, undefined, 2)}\n`,
);
process.exitCode = results.every((result) => holds(result)) ? 0 : 1;
