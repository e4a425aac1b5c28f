/** The end of a proxy: tell the world, let requests finish, close everything, once. */
import { sleep } from '../lib/clock.ts';
import type { Parts } from './assemble.ts';

export interface StopOptions {
  /** How long new connections are still taken, and told to go elsewhere on their first answer. Default 0. */
  readonly windowMs?: number;
  /** How long connections may finish what is under way. Default 10 s, never more than the drain time. */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;
const POLL_MS = 20;
const FLUSH_MS = 250;
const EXPIRY_SWEEP_MS = 30_000;
const STATS_IDLE_MS = 540_000;

export class Lifecycle {
  /** Resolves with the exit code. */
  readonly done: Promise<number>;
  readonly #parts: Parts;
  readonly #resolveDone: (code: number) => void;
  readonly #hurry = new AbortController();
  readonly #endings: (() => Promise<void>)[] = [];
  #stopping: Promise<void> | undefined;
  #cancelExpiry: () => void = () => undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    let resolveDone: (code: number) => void = () => undefined;
    this.done = new Promise((resolve) => {
      resolveDone = resolve;
    });
    this.#resolveDone = resolveDone;
    this.#expireStats();
  }

  /** Registers what is to be closed after the listeners. */
  onEnd(ending: () => Promise<void>): void {
    this.#endings.push(ending);
  }

  /** Drains and ends. A later call with no time to finish hurries the first one. */
  stop(options: StopOptions = {}): Promise<void> {
    if (options.timeoutMs === 0) this.#hurry.abort();
    this.#stopping ??= this.#stop(options);
    return this.#stopping;
  }

  /** Admin `/drain_listeners`: connections are asked to end; without `graceful` nothing new is accepted from now on. */
  drainListeners(request: { readonly inboundOnly: boolean; readonly graceful: boolean; readonly skipExit: boolean }): void {
    const { listeners, clock, options, log, status } = this.#parts;
    log.info('Listeners drain.', { inboundOnly: request.inboundOnly, graceful: request.graceful });
    const drain = (stop: boolean): void => {
      const count = listeners.drain({ inboundOnly: request.inboundOnly, stop });
      if (stop) status.listenersStopped(count);
    };
    drain(!request.graceful);
    if (!request.graceful || request.skipExit) return;
    // Envoy: a graceful drain stops accepting when the drain time is over.
    const cancel = clock.after(options.drainTimeMs, () => drain(true));
    this.#endings.push(() => {
      cancel();
      return Promise.resolve();
    });
  }

  /** Series of clusters and listeners that are gone leave after ten minutes without a change (acceptance rule M4). */
  #expireStats(): void {
    const { clock, registry } = this.#parts;
    this.#cancelExpiry = clock.after(EXPIRY_SWEEP_MS, () => {
      registry.expire(clock.now(), STATS_IDLE_MS);
      this.#expireStats();
    });
  }

  async #stop(options: StopOptions): Promise<void> {
    const { status, listeners, clock, runtime, clusters, onDemand, writers, exporters } = this.#parts;
    const { signal } = this.#hurry;
    status.drain();
    const windowMs = options.windowMs ?? 0;
    listeners.drain({ inboundOnly: false, stop: windowMs === 0 });
    if (windowMs > 0) {
      await sleep(clock, windowMs, signal);
      listeners.drain({ inboundOnly: false, stop: true });
    }
    const timeoutMs = Math.min(options.timeoutMs ?? TIMEOUT_MS, this.#parts.options.drainTimeMs);
    const untilMs = clock.now() + timeoutMs;
    while (listeners.active > 0 && clock.now() < untilMs && !signal.aborted) await sleep(clock, POLL_MS, signal);
    // Last answers are written and not yet with the kernel.
    const flushedMs = clock.now() + Math.min(timeoutMs, FLUSH_MS);
    while (listeners.connections > 0 && clock.now() < flushedMs && !signal.aborted) await sleep(clock, POLL_MS, signal);
    await listeners.close();
    onDemand.close();
    this.#cancelExpiry();
    runtime.close();
    status.close();
    for (const ending of this.#endings) await ending();
    clusters.close();
    await Promise.all([...exporters.values()].map((exporter) => exporter.close()));
    await Promise.all([...writers.values()].map((writer) => writer.close()));
    this.#resolveDone(0);
  }
}
