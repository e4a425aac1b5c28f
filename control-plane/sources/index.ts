/** The sources that the command line switches on: one line each. Registrations and API writes are sources too, made with the API that feeds them. */
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Source } from '../world.ts';
import { createFilesSource } from './files.ts';

export interface SourceSettings {
  readonly clock: Clock;
  readonly log: Log;
  /** Files and directories; none = no files source. */
  readonly files: readonly string[];
}

export const SOURCES = {
  files: ({ clock, log, files }) => (files.length === 0 ? undefined : createFilesSource(files, { clock, log })),
} satisfies Record<string, (settings: SourceSettings) => Source | undefined>;

/** Those that the settings ask for, in order of precedence. */
export function createSources(settings: SourceSettings): readonly Source[] {
  return Object.values(SOURCES).flatMap((create) => create(settings) ?? []);
}
