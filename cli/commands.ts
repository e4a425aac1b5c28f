/** The verbs: one line here and one file each. A file is loaded only when its verb is used. */

import { nearest } from '../lib/suggest.ts';

/** What a verb's file exports: takes the words after the verb, answers the exit code. */
export interface CommandModule {
  run(argv: readonly string[]): Promise<number>;
}

interface Command {
  readonly summary: string;
  load(): Promise<CommandModule>;
}

export const COMMANDS = {
  demo: { summary: 'the whole mesh on this computer, with traffic', load: () => import('./demo.ts') },
  run: { summary: 'an application with its sidecar', load: () => import('./run.ts') },
  'control-plane': { summary: 'discover services, push configuration and certificates', load: () => import('./control-plane.ts') },
  proxy: { summary: 'the sidecar proxy, from an Envoy bootstrap file', load: () => import('./proxy.ts') },
  inject: { summary: 'add sidecars to a Kubernetes manifest or a compose file', load: () => import('./inject.ts') },
  apply: { summary: 'create or replace resources from YAML', load: () => import('./apply.ts') },
  get: { summary: 'list services, endpoints, routes, workloads, proxies, certificates or resources', load: () => import('./get.ts') },
  delete: { summary: 'delete a resource', load: () => import('./delete.ts') },
  status: { summary: 'which proxy has which configuration', load: () => import('./status.ts') },
} as const satisfies Readonly<Record<string, Command>>;

export function describeCommands(): string {
  const rows = Object.entries(COMMANDS).map(([name, command]) => `  ${name.padEnd(15)}${command.summary}\n`);
  return `Meshwork, a service mesh in TypeScript.\n\nUsage: meshwork <command> [options]\n\n${rows.join('')}\nmeshwork <command> --help says more. Start here: meshwork demo\n`;
}

/** The verb that a mistyped one most likely meant, or undefined. */
export function nearestCommand(word: string): string | undefined {
  return nearest(word, Object.keys(COMMANDS));
}
