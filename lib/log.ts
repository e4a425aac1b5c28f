/** Log lines as JSON or plain text, one write a line, with a level that can change while running. */
import type { Clock } from './clock.ts';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warning', 'error', 'critical', 'off'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFields = Readonly<Record<string, unknown>>;

/** Writes a line per call when its level is at or above the log's. Messages are whole sentences; what varies goes into `fields`. */
export interface Log {
  level: LogLevel;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warning(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A log that adds `fields` to each of its lines and shares this one's level. */
  with(fields: LogFields): Log;
}

export interface LogOptions {
  clock: Clock;
  level?: LogLevel;
  format?: 'json' | 'text';
  /** Takes a whole line with its line end. Default: standard error. */
  write?: (line: string) => void;
}

/** Makes a log. Errors in `fields` are written as their message; bigints as text; no field can make a call throw. */
export function createLog(options: LogOptions): Log {
  const shared = { level: options.level ?? ('info' as LogLevel) };
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const render = (options.format ?? 'json') === 'json' ? renderJson : renderText;
  const make = (bound: LogFields): Log => {
    const line = (level: LogLevel, message: string, fields?: LogFields): void => {
      if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(shared.level)) return;
      write(render(new Date(options.clock.wallMs()).toISOString(), level, message, { ...bound, ...fields }));
    };
    return {
      get level() {
        return shared.level;
      },
      set level(level: LogLevel) {
        shared.level = level;
      },
      debug: (message, fields) => line('debug', message, fields),
      info: (message, fields) => line('info', message, fields),
      warning: (message, fields) => line('warning', message, fields),
      error: (message, fields) => line('error', message, fields),
      with: (fields) => make({ ...bound, ...fields }),
    };
  };
  return make({});
}

/** A log that keeps nothing, for tests and pure cores. */
export const silentLog: Log = createLog({
  clock: { now: () => 0, wallMs: () => 0, after: () => () => undefined, afterUnheld: () => () => undefined },
  level: 'off',
  write: () => undefined,
});

function plain(_key: string, value: unknown): unknown {
  if (value instanceof Error) return value.message;
  return typeof value === 'bigint' ? value.toString() : value;
}

function stringify(value: unknown): string {
  try {
    return JSON.stringify(value, plain) ?? 'null';
  } catch (error) {
    return JSON.stringify(`unprintable: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function renderJson(time: string, level: LogLevel, message: string, fields: LogFields): string {
  const tail = stringify(fields);
  const head = `{"time":"${time}","level":"${level}","message":${JSON.stringify(message)}`;
  return tail.startsWith('{') && tail.length > 2 ? `${head},${tail.slice(1)}\n` : `${head}}\n`;
}

function renderText(time: string, level: LogLevel, message: string, fields: LogFields): string {
  const parts = Object.entries(fields).map(
    ([key, value]) => ` ${key}=${typeof value === 'string' && !/[\s"=]/.test(value) ? value : stringify(value)}`,
  );
  return `${time} ${level.padEnd(7)} ${message}${parts.join('')}\n`;
}
