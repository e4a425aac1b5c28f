/** Writes lines to a file or to standard output: gathered in memory, flushed by size and time, dropped and counted when the disk is too slow. */
import { createWriteStream } from 'node:fs';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Registry } from '../../lib/metrics.ts';

export interface LineWriter {
  /** Takes a line with its end. Never waits. */
  write(line: string): void;
  /** Opens the file anew, for log rotation. */
  reopen(): void;
  /** Writes what is left and resolves when it is out. */
  close(): Promise<void>;
  /** Lines given up because too many waited. */
  readonly dropped: number;
}

/** Envoy's `filesystem.*`: lines taken, writes that were done or failed, those that time was the reason for, characters in memory. */
export interface FileStats {
  readonly buffered: { inc(): void };
  readonly completed: { inc(): void };
  readonly failed: { inc(): void };
  readonly flushedByTimer: { inc(): void };
  readonly bufferedBytes: { add(bytes: number): void };
}

/** The same handles for the same registry. */
export function fileStats(registry: Registry): FileStats {
  const named = (name: string): [string, Record<string, string>, { dotted: string }] => [
    `envoy_filesystem_${name}`,
    {},
    { dotted: `filesystem.${name}` },
  ];
  return {
    buffered: registry.counter(...named('write_buffered')),
    completed: registry.counter(...named('write_completed')),
    failed: registry.counter(...named('write_failed')),
    flushedByTimer: registry.counter(...named('flushed_by_timer')),
    bufferedBytes: registry.gauge(...named('write_total_buffered')),
  };
}

const FLUSH_BYTES = 64 * 1024;
const WAITING_BYTES_MAX = 8 * 1024 * 1024;

/** `path` may be `/dev/stdout` or `/dev/stderr`. `flushMs` is the longest time a line waits in memory. */
export function createLineWriter(path: string, deps: { clock: Clock; log: Log; flushMs: number; stats?: FileStats }): LineWriter {
  const { stats } = deps;
  const stream = path === '/dev/stdout' ? process.stdout : path === '/dev/stderr' ? process.stderr : undefined;
  let file = stream ?? openFile();
  let lines = '';
  let cancelFlush: (() => void) | undefined;
  let dropped = 0;

  function openFile(): NodeJS.WritableStream & { writableLength: number } {
    const opened = createWriteStream(path, { flags: 'a', mode: 0o640 });
    opened.on('error', (error) => deps.log.error('The access log could not be written.', { path, error }));
    return opened;
  }
  const flush = (): void => {
    cancelFlush?.();
    cancelFlush = undefined;
    if (lines === '') return;
    const text = lines;
    lines = '';
    stats?.bufferedBytes.add(-text.length);
    file.write(text, (error) => (error instanceof Error ? stats?.failed : stats?.completed)?.inc());
  };
  const flushByTime = (): void => {
    stats?.flushedByTimer.inc();
    flush();
  };
  return {
    write: (line) => {
      if (file.writableLength + lines.length > WAITING_BYTES_MAX) {
        dropped++;
        return;
      }
      lines += line;
      stats?.buffered.inc();
      stats?.bufferedBytes.add(line.length);
      if (lines.length >= FLUSH_BYTES) flush();
      else cancelFlush ??= deps.clock.after(deps.flushMs, flushByTime);
    },
    reopen: () => {
      flush();
      if (stream !== undefined) return;
      file.end();
      file = openFile();
    },
    close: () =>
      new Promise((resolve) => {
        flush();
        if (stream !== undefined) file.write('', () => resolve());
        else file.end(() => resolve());
      }),
    get dropped() {
      return dropped;
    },
  };
}
