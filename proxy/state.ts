/** The last good configuration on disk: what a proxy starts from when no control plane answers. */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Kind } from './resource-store.ts';

export interface SavedResource {
  readonly kind: Kind;
  readonly name: string;
  readonly version: string;
  readonly typeUrl: string;
  readonly bytes: Uint8Array;
}

export interface SavedState {
  /** Id of the node that it belongs to. */
  readonly node: string;
  readonly savedMs: number;
  readonly resources: readonly SavedResource[];
}

/** Why a state file is not used: one sentence with the rule. */
export class StateError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'StateError';
  }
}

export const STATE_FILE = 'last-good.state';
export const STATE_BYTES_MAX = 128 * 1024 * 1024;
const FORMAT = 'meshwork-state-1';
const KINDS: ReadonlySet<string> = new Set<Kind>(['listeners', 'routes', 'virtualHosts', 'clusters', 'endpoints', 'secrets']);

/** A line with format and SHA-256 of the rest, then JSON. Private keys are in it, so it is written for nobody else's eyes. */
export function encodeState({ node, savedMs, resources }: SavedState): string {
  const rows = resources.map(({ kind, name, version, typeUrl, bytes }) => [
    kind,
    name,
    version,
    typeUrl,
    Buffer.from(bytes).toString('base64'),
  ]);
  const body = JSON.stringify({ node, savedMs, resources: rows });
  return `${FORMAT} ${digest(body)}\n${body}\n`;
}

/** The state of this node. Throws StateError for what is damaged, of another format, or another node's. */
export function decodeState(text: string, node: string): SavedState {
  const lineEnd = text.indexOf('\n');
  const [format, sum] = text.slice(0, Math.max(0, lineEnd)).split(' ');
  if (format !== FORMAT) throw new StateError(`it must begin with ${FORMAT}`);
  const body = text.slice(lineEnd + 1).replace(/\n$/, '');
  if (digest(body) !== sum) throw new StateError('its checksum does not match its content');
  let read: { node?: unknown; savedMs?: unknown; resources?: unknown };
  try {
    read = JSON.parse(body) as typeof read;
  } catch (error) {
    throw new StateError(`it is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (read.node !== node) throw new StateError(`it belongs to node ${JSON.stringify(read.node)}, and this is ${JSON.stringify(node)}`);
  if (typeof read.savedMs !== 'number' || !Array.isArray(read.resources)) throw new StateError('it must have savedMs and resources');
  return { node, savedMs: read.savedMs, resources: read.resources.map(resourceOf) };
}

/** Reads the file of a directory; undefined when there is none. Throws StateError, or the system's error. */
export async function readState(directory: string, node: string): Promise<SavedState | undefined> {
  let file;
  try {
    file = await open(join(directory, STATE_FILE), constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { size, mode, uid } = await file.stat();
    if (size > STATE_BYTES_MAX) throw new StateError(`it has ${size} bytes, and at most ${STATE_BYTES_MAX} are read`);
    // Whoever can write it decides where traffic goes and whom it trusts.
    if ((mode & 0o022) !== 0) throw new StateError(`others may write it: its mode is ${(mode & 0o777).toString(8)}, and must be 600`);
    const own = process.getuid?.();
    if (own !== undefined && uid !== own) throw new StateError(`it belongs to user ${uid}, and the proxy runs as ${own}`);
    return decodeState(await file.readFile('utf8'), node);
  } finally {
    await file.close();
  }
}

/** Writes the whole file beside the old one and moves it into place, so that a crash leaves one or the other. Throws the system's error. */
export async function writeState(directory: string, state: SavedState): Promise<void> {
  const text = encodeState(state);
  if (text.length > STATE_BYTES_MAX)
    throw new StateError(`the configuration takes ${text.length} bytes, and at most ${STATE_BYTES_MAX} are kept`);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const target = join(directory, STATE_FILE);
  const part = `${target}.${process.pid}.part`;
  await rm(part, { force: true });
  try {
    const file = await open(part, 'wx', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, target);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  // The rename itself is on disk only when the directory is.
  const parent = await open(directory, constants.O_RDONLY);
  try {
    await parent.sync();
  } finally {
    await parent.close();
  }
}

function resourceOf(row: unknown): SavedResource {
  if (!Array.isArray(row) || row.length !== 5 || row.some((cell) => typeof cell !== 'string'))
    throw new StateError('a resource must be five texts');
  const [kind, name, version, typeUrl, base64] = row as [string, string, string, string, string];
  if (!KINDS.has(kind)) throw new StateError(`there is no kind ${JSON.stringify(kind)}`);
  return { kind: kind as Kind, name, version, typeUrl, bytes: Buffer.from(base64, 'base64') };
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
