/** A program: the control plane, that tells its memory when it is asked over IPC. Wants `--expose-gc`. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { runControlPlane } from '../../control-plane/main.ts';

export interface Memory {
  /** After a full collection: what is really kept, buffers included. */
  readonly keptMiB: number;
  /** The longest that the event loop was blocked since the question before. */
  readonly blockedMsMax: number;
}

const MIB = 1024 * 1024;
const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();

process.on('message', () => {
  const blockedMsMax = delay.max / 1e6;
  (globalThis as unknown as { gc: () => void }).gc();
  const { heapUsed, external } = process.memoryUsage();
  delay.reset();
  process.send!({ keptMiB: (heapUsed + external) / MIB, blockedMsMax } satisfies Memory);
});
process.once('disconnect', () => process.exit(0));
process.exitCode = await runControlPlane(process.argv.slice(2));
