/** Open-loop load: so many requests a second, whether or not the last ones were answered, with every outcome kept. */
import { Agent, request } from 'node:http';
import type { Clock } from '../../lib/clock.ts';

export interface Outcome {
  readonly atMs: number;
  readonly latencyMs: number;
  readonly ok: boolean;
  /** Version of the service asked for, or of the one behind it, empty when it failed. */
  readonly version: string;
  readonly error: string;
}

export interface Load {
  /** All outcomes so far, oldest first. */
  readonly outcomes: readonly Outcome[];
  /** Stops sending and waits for what is under way. */
  stop(): Promise<void>;
}

interface Answer {
  readonly version?: string;
  readonly next?: { readonly version?: string };
}

const TIMEOUT_MS = 10_000;

/** Sends GET / to `host` through the outbound port of a sidecar. */
export function startLoad(options: { clock: Clock; outboundPort: number; host: string; requestsPerSecond: number }): Load {
  const { clock } = options;
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  const outcomes: Outcome[] = [];
  const pending = new Set<Promise<void>>();
  const periodMs = 1000 / options.requestsPerSecond;
  let nextMs = clock.now();
  let stopped = false;
  let cancel: () => void = () => undefined;
  const tick = (): void => {
    if (stopped) return;
    while (nextMs <= clock.now()) {
      const sent = send(agent, options, clock).then((outcome) => {
        outcomes.push(outcome);
        pending.delete(sent);
      });
      pending.add(sent);
      nextMs += periodMs;
    }
    cancel = clock.after(Math.max(1, nextMs - clock.now()), tick);
  };
  tick();
  return {
    outcomes,
    stop: async () => {
      stopped = true;
      cancel();
      await Promise.all(pending);
      agent.destroy();
    },
  };
}

/** One request. Resolves with its outcome, whatever it is. */
function send(agent: Agent, options: { outboundPort: number; host: string }, clock: Clock): Promise<Outcome> {
  const startMs = clock.now();
  return new Promise((resolve) => {
    const done = (ok: boolean, version: string, error: string): void =>
      resolve({ atMs: startMs, latencyMs: clock.now() - startMs, ok, version, error });
    const call = request(
      { agent, host: '127.0.0.1', port: options.outboundPort, headers: { host: options.host }, timeout: TIMEOUT_MS },
      (reply) => {
        const chunks: Buffer[] = [];
        reply.on('data', (chunk: Buffer) => chunks.push(chunk));
        reply.on('error', (error) => done(false, '', error.message));
        reply.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          if (reply.statusCode !== 200) done(false, '', `status ${String(reply.statusCode)}: ${text.slice(0, 300)}`);
          else {
            const answer = JSON.parse(text) as Answer;
            done(true, answer.next?.version ?? answer.version ?? '', '');
          }
        });
      },
    );
    call.on('timeout', () => call.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    call.on('error', (error) => done(false, '', error.message));
    call.end();
  });
}

/** The value below which `share` (0 to 1) of the latencies lie, in milliseconds with one decimal; 0 when there are none. */
export function percentileMs(outcomes: readonly Outcome[], share: number): number {
  if (outcomes.length === 0) return 0;
  const sorted = outcomes.map((outcome) => outcome.latencyMs).toSorted((a, b) => a - b);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]! * 10) / 10;
}

/** How many successful requests each version served. */
export function splitOf(outcomes: readonly Outcome[]): { v1: number; v2: number } {
  const split = { v1: 0, v2: 0 };
  for (const outcome of outcomes) if (outcome.version === 'v1' || outcome.version === 'v2') split[outcome.version]++;
  return split;
}
