/** Runs one Envoy file on our proxy and on a real Envoy and compares what requests saw and what statistics count. Without an Envoy our side runs alone. */
import { writeFileSync } from 'node:fs';
import { expect } from '@jest/globals';
import { findEnvoy, startSide } from './envoy-pair.ts';
import type { Ask, Seen, Setup, Side } from './envoy-pair.ts';

export const envoy = findEnvoy();
if (envoy === undefined) process.stderr.write('No Envoy in ENVOY or on PATH: the Envoy files run on our proxy only.\n');
export const TEST_MS = 180_000;

/**
 * Statistics that both have and that need not agree: sizes, since our own error texts are longer; memory and time; who was the first to close
 * a connection after its last answer; and what follows the moment of a start or of a write to the disk.
 */
const UNCOMPARED_STATS: readonly RegExp[] = [
  /(rx|tx)_bytes/,
  /^server\.(memory_|uptime|total_connections)/,
  /update_time$/,
  /^http\..*\.downstream_cx_destroy_(local|remote)$/,
  /^filesystem\.(flushed_by_timer|write_completed|write_total_buffered)$/,
  /^runtime\.load_success$/,
  /warming/,
];

interface Played {
  readonly seen: unknown;
  readonly stats: ReadonlyMap<string, number>;
}

async function play(name: Side['name'], setup: Setup, script: (side: Side) => Promise<unknown>): Promise<Played> {
  const side = await startSide(name, envoy ?? '', setup);
  const seen = await script(side);
  // Statistics of the last connection are written when it is closed.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const stats = await side.stats();
  await side.stop();
  return { seen, stats };
}

/** Runs the script on both sides, one after the other, and compares; answers what our side saw. */
export async function compare(
  setup: Setup,
  script: (side: Side) => Promise<unknown>,
  options: { readonly unequalStats?: RegExp; readonly statsMin?: number } = {},
): Promise<any> {
  const ours = await play('meshwork', setup, script);
  if (envoy === undefined) return ours.seen;
  const theirs = await play('envoy', setup, script);
  expect({ meshwork: ours.seen }).toEqual({ meshwork: theirs.seen });
  const ignored = [...UNCOMPARED_STATS, ...(options.unequalStats === undefined ? [] : [options.unequalStats])];
  const names = [...ours.stats.keys()].filter((stat) => theirs.stats.has(stat) && !ignored.some((pattern) => pattern.test(stat)));
  if (process.env['DUMP_STATS'] !== undefined) {
    writeFileSync(
      `${process.env['DUMP_STATS']}.ours`,
      [...ours.stats]
        .map(([stat, value]) => `${stat} ${value}`)
        .sort()
        .join('\n'),
    );
    writeFileSync(
      `${process.env['DUMP_STATS']}.envoy`,
      [...theirs.stats]
        .map(([stat, value]) => `${stat} ${value}`)
        .sort()
        .join('\n'),
    );
  }
  const pick = (stats: ReadonlyMap<string, number>): Record<string, number> =>
    Object.fromEntries(names.map((stat) => [stat, stats.get(stat)!]));
  expect({ statistics: pick(ours.stats) }).toEqual({ statistics: pick(theirs.stats) });
  expect(names.length).toBeGreaterThan(options.statsMin ?? 20);
  return ours.seen;
}

export async function askAll(side: Side, port: number, asks: readonly Ask[]): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (const ask of asks) seen.push(await side.ask(port, ask));
  return seen;
}

/** An error that the proxy itself answers: our text says more than Envoy's, so only the status is compared. */
export const withoutText = (seen: Seen): Seen => ({ ...seen, headers: {}, body: '' });
export const statuses = (seen: readonly Seen[]): Seen['status'][] => seen.map(({ status }) => status);
export const applications = (seen: readonly Seen[]): unknown[] => seen.map(({ body }) => (body as { application?: number }).application);
