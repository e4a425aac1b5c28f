/** Server and client sessions against each other under a seed: loss, restarts, reordering, slow clients. `SEED=7 STEPS=100000` replays and lengthens. */
import { describe, expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { below, seededRandom } from '../../lib/random.ts';
import type { Random } from '../../lib/random.ts';
import type { ResourceSet } from '../../xds/session/server.ts';
import { SERVER_HOLD_MS, SimClient, SimWorld } from './mesh.ts';

const SEED = Number(process.env['SEED'] ?? 20261123);
const STEPS = Number(process.env['STEPS'] ?? 100_000);

interface Scenario {
  readonly name: string;
  readonly reorder: boolean;
  readonly breaks: boolean;
  readonly rejects: boolean;
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'one ordered stream that never breaks, nothing rejected', reorder: false, breaks: false, rejects: false },
  { name: 'streams that break, a server that restarts, slow clients, rejections', reorder: false, breaks: true, rejects: true },
  { name: 'the same with types overtaking each other', reorder: true, breaks: true, rejects: true },
];

describe('xDS sessions', () => {
  for (const scenario of SCENARIOS) {
    test(`keep versions going forward, never tear, and converge: ${scenario.name}`, () => {
      try {
        simulate(scenario, STEPS / SCENARIOS.length);
      } catch (error) {
        throw new Error(`${error instanceof Error ? error.message : String(error)} (replay with SEED=${SEED} STEPS=${STEPS})`, {
          cause: error,
        });
      }
    });
  }
});

function simulate(scenario: Scenario, steps: number): void {
  const random = seededRandom(SEED);
  const clock = new ManualClock();
  const world = new SimWorld(random);
  let resources = world.resources(undefined);
  const options = { random, clock, reorder: scenario.reorder, rejects: scenario.rejects };
  const clients = (['delta', 'sotw', 'delta', 'sotw'] as const).map((mode) => new SimClient({ ...options, mode }));
  for (const client of clients) client.connect(resources);
  const publish = (hints: boolean): void => {
    world.change();
    resources = world.resources(hints ? resources : undefined);
    for (const client of clients) client.publish(resources);
  };
  let converged = 0;
  for (let step = 0; step < steps; step++) {
    const client = clients[below(random, clients.length)]!;
    const dice = below(random, 1000);
    if (dice < 10) publish(below(random, 4) > 0);
    else if (dice < 12) clock.advance(below(random, 2000));
    else if (dice < 14) client.slow = !client.slow;
    else if (dice < 16 && scenario.breaks) client.disconnect();
    else if (dice === 16 && scenario.breaks && below(random, 10) === 0) {
      // A restarted server knows nothing of before and has no hints for its first sets.
      resources = world.resources(undefined);
      for (const other of clients) other.disconnect();
    } else if (!client.connected) {
      if (dice < 100) client.connect(resources);
    } else act(client, random);
    if (step % 5_000 === 4_999) {
      calm(clients, clock, resources);
      for (const [index, other] of clients.entries()) {
        const difference = other.difference(world);
        if (difference !== undefined) throw new Error(`step ${step}: client ${index} did not converge: ${difference}`);
        converged += 1;
      }
    }
  }
  expect(converged).toBe(clients.length * Math.floor(steps / 5_000));
  if (scenario.rejects) expect(clients.reduce((sum, client) => sum + client.rejections, 0)).toBeGreaterThan(0);
}

function act(client: SimClient, random: Random): void {
  switch (below(random, 5)) {
    case 0:
      return void client.clientSends();
    case 1:
      return void client.serverSends();
    case 2:
      return void client.serverTakes();
    case 3:
      return void client.clientTakes();
    case 4:
      return void client.settles();
  }
}

/** Faults stop and everything is delivered, until a silence longer than anything is held back. */
function calm(clients: readonly SimClient[], clock: ManualClock, resources: ResourceSet): void {
  for (const client of clients) {
    client.slow = false;
    if (!client.connected) client.connect(resources);
  }
  let quietMs = 0;
  for (let round = 0; round < 10_000; round++) {
    let moved = false;
    for (const client of clients) {
      const moves = [client.clientSends(), client.serverTakes(), client.serverSends(), client.clientTakes(), client.settles()];
      moved ||= moves.includes(true);
    }
    if (moved) {
      quietMs = 0;
      continue;
    }
    if (quietMs > SERVER_HOLD_MS) return;
    clock.advance(SERVER_HOLD_MS / 4);
    quietMs += SERVER_HOLD_MS / 4;
  }
  throw new Error('messages go round for ever');
}
