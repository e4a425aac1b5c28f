/** The flags of Node that `cli/meshwork.js` starts processes with, as they stand there. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const text = readFileSync(join(import.meta.dirname, '../../cli/meshwork.js'), 'utf8');

function flagsOf(name: string): readonly string[] {
  const list = new RegExp(`const ${name} = \\[([^\\]]*)\\]`).exec(text)?.[1];
  if (list === undefined) throw new Error(`cli/meshwork.js has no list ${name}`);
  return [...list.matchAll(/'([^']+)'/g)].map((match) => match[1]!);
}

/** Of every process. */
export const NODE_FLAGS = flagsOf('NODE_FLAGS');
/** Of a control plane: those, and its own. */
export const CONTROL_PLANE_FLAGS: readonly string[] = [...NODE_FLAGS, ...flagsOf('CONTROL_PLANE_FLAGS')];
