/** Where resources come from: one line each, in order of precedence. The control plane is built from this list. */
import type { Base } from '../gather.ts';
import type { Source, World } from '../world.ts';
import { createApiSource } from './api.ts';
import { createFilesSource } from './files.ts';
import { observeSource } from './observed.ts';
import { createRegistrations } from './registrations.ts';

export interface SourceDeps extends Base {
  /** Files and directories of the command line. */
  readonly files: readonly string[];
  /** Begins changes in the name of a source. */
  readonly noting: (source: string) => (resources: readonly string[]) => { readonly id: string; readonly taken: () => void };
}

/** A source as the catalog follows it, and what others do with it by its own name. */
export interface MadeSource<T> {
  readonly source: Source;
  readonly handle: T;
  /** Told of every world. */
  readonly world?: (world: World) => void;
  readonly close?: () => void | Promise<void>;
}

export const SOURCES = {
  files: ({ files, clock, log, noting }: SourceDeps) => {
    const handle = observeSource(createFilesSource(files, { clock, log }), noting('files'));
    return { source: handle, handle };
  },
  api: ({ clock, store, noting }: SourceDeps) => {
    const handle = createApiSource({ clock, store, change: noting('api') });
    return { source: handle.source, handle };
  },
  registrations: (deps: SourceDeps) => {
    const handle = createRegistrations({ ...deps, change: deps.noting('registrations') });
    return { source: handle.source, handle, world: (world: World) => handle.world(world), close: () => handle.close() };
  },
} satisfies Record<string, (deps: SourceDeps) => MadeSource<unknown>>;

export type Sources = { readonly [Name in keyof typeof SOURCES]: ReturnType<(typeof SOURCES)[Name]>['handle'] };

/** Makes all of them: by name, and as a list in order of precedence. */
export function createSources(deps: SourceDeps): { readonly byName: Sources; readonly made: readonly MadeSource<unknown>[] } {
  const made = Object.entries(SOURCES).map(([name, create]) => [name, create(deps) as MadeSource<unknown>] as const);
  const byName = Object.fromEntries(made.map(([name, { handle }]) => [name, handle])) as unknown as Sources;
  return { byName, made: made.map(([, one]) => one) };
}
