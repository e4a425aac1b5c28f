/** Writes lines to a file or to standard output: gathered in memory, flushed by size and time, dropped and counted when the disk is too slow. */
import { createWriteStream } from 'node:fs';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';

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

const FLUSH_BYTES = 64 * 1024;
const WAITING_BYTES_MAX = 8 * 1024 * 1024;

/** `path` may be `/dev/stdout` or `/dev/stderr`. `flushMs` is the longest time a line waits in memory. */
export function createLineWriter(path: string, deps: { clock: Clock; log: Log; flushMs: number }): LineWriter {
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
    file.write(text);
  };
  return {
    write: (line) => {
      if (file.writableLength + lines.length > WAITING_BYTES_MAX) {
        dropped++;
        return;
      }
      lines += line;
      if (lines.length >= FLUSH_BYTES) flush();
      else cancelFlush ??= deps.clock.after(deps.flushMs, flush);
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
