/** The admin endpoints that change something. POST only. */
import { LOG_LEVELS } from '../../lib/log.ts';
import { text } from './endpoint.ts';
import type { AdminEndpoint } from './endpoint.ts';
import type { LogLevel } from '../../lib/log.ts';

const action = (path: string, help: string, handle: AdminEndpoint['handle']): AdminEndpoint => ({ path, help, mutates: true, handle });
const OK = text('OK\n');

export const drainListeners = action('/drain_listeners', 'drain listeners (graceful, inboundonly, skip_exit)', (request, context) => {
  context.drainListeners({
    inboundOnly: request.query.has('inboundonly'),
    graceful: request.query.has('graceful'),
    skipExit: request.query.has('skip_exit'),
  });
  return OK;
});

export const quit = action('/quitquitquit', 'exit the server', (_request, context) => {
  context.quit();
  return OK;
});

export const failHealthCheck = action('/healthcheck/fail', 'cause the server to fail health checks', (_request, context) => {
  context.failHealthCheck(true);
  return OK;
});

export const passHealthCheck = action('/healthcheck/ok', 'cause the server to pass health checks', (_request, context) => {
  context.failHealthCheck(false);
  return OK;
});

export const resetCounters = action('/reset_counters', 'reset all counters to zero', (_request, context) => {
  context.registry.resetCounters();
  return OK;
});

export const reopenLogs = action('/reopen_logs', 'reopen access logs', (_request, context) => {
  context.reopenLogs();
  return OK;
});

const LEVEL_BY_WORD: Readonly<Record<string, LogLevel>> = {
  ...Object.fromEntries(LOG_LEVELS.map((level) => [level, level])),
  warn: 'warning',
};

/** `?level=debug`, or `?paths=a:debug`, or `?upstream=debug`: there is one logger, so the last level given counts for all. */
export const logging = action('/logging', 'query/change logging levels (level=LEVEL)', (request, context) => {
  const words = [...request.query.entries()].flatMap(([name, value]) =>
    name === 'paths' ? value.split(',').map((pair) => pair.slice(pair.lastIndexOf(':') + 1)) : [value],
  );
  for (const word of words) {
    const level = Object.hasOwn(LEVEL_BY_WORD, word) ? LEVEL_BY_WORD[word] : undefined;
    if (level === undefined) return text(`error: a level is one of ${LOG_LEVELS.join(', ')}, received ${JSON.stringify(word)}\n`, 400);
    context.log.level = level;
  }
  return text(`active loggers:\n  main: ${context.log.level}\n`);
});

export const runtimeModify = action('/runtime_modify', 'modify runtime values (key=value; an empty value removes)', (request, context) => {
  const values = new URLSearchParams(request.query);
  if (request.body !== '') for (const [key, value] of new URLSearchParams(request.body)) values.set(key, value);
  if (values.size === 0)
    return text(
      'usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form values\nuse an empty value to remove a previously added override',
      400,
    );
  try {
    for (const [key, value] of values) context.layers.modify(key, value);
    context.runtimeModified();
  } catch (error) {
    return text(`${error instanceof Error ? error.message : String(error)}\n`, 503);
  }
  return OK;
});
