/** `meshwork apply`: creates or replaces the resources of YAML and JSON files. */
import { readFileSync } from 'node:fs';
import { parseAllDocuments } from 'yaml';
import { ApiError, DEFAULT_API, createApiClient } from './client.ts';
import type { ApiClient } from './client.ts';
import { CommandError, EXIT } from './exit.ts';
import { collect, integer, parse, verb } from './parse.ts';

interface Manifest {
  readonly kind?: string;
  readonly metadata?: { readonly name?: string; readonly namespace?: string };
}

interface Change {
  readonly id: string;
  readonly proxies: readonly { readonly id: string; readonly state: string; readonly message?: string }[];
}

export async function run(argv: readonly string[]): Promise<number> {
  const command = verb('apply', 'Create or replace the resources of files, and wait until the proxies have them.')
    .requiredOption('-f, --file <file>', 'file, repeatable; - for standard input', collect, [])
    .option('--dry-run', 'validate and say what would change, write nothing', false)
    .option('--wait <seconds>', 'how long to wait for the proxies', integer('--wait', 0, 300), 5)
    .option('--control-plane <address>', 'API of the control plane', process.env['MESHWORK_CONTROL_PLANE'] ?? DEFAULT_API);
  parse(command, argv);
  const options = command.opts<{ file: string[]; dryRun: boolean; wait: number; controlPlane: string }>();
  if (options.file.length === 0) throw new CommandError('--file names no file', EXIT.usage);
  const api = createApiClient(options.controlPlane);
  try {
    let code: number = EXIT.fine;
    for (const file of options.file) {
      for (const manifest of readManifests(file)) {
        const changeId = await applyOne(api, file, manifest, options.dryRun);
        if (changeId !== undefined && options.wait > 0 && (await report(api, changeId, options.wait)) > 0) code = EXIT.problems;
      }
    }
    return code;
  } finally {
    await api.close();
  }
}

function readManifests(file: string): Manifest[] {
  let text: string;
  try {
    text = readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new CommandError(`cannot read ${file}: ${(error as Error).message}`, EXIT.usage);
  }
  const documents = parseAllDocuments(text);
  const list = Array.isArray(documents) ? documents : [];
  return list.flatMap((document) => {
    const error = document.errors[0];
    if (error !== undefined) throw new CommandError(`${file}: ${error.message}`);
    const value = document.toJS() as (Manifest & { items?: Manifest[] }) | null;
    if (value === null) return [];
    return value.kind === 'List' ? (value.items ?? []) : [value];
  });
}

async function applyOne(api: ApiClient, file: string, manifest: Manifest, dryRun: boolean): Promise<string | undefined> {
  const { kind, metadata } = manifest;
  if (kind === undefined || metadata?.name === undefined) throw new CommandError(`${file}: a resource needs kind and metadata.name`);
  const label = `${kind} ${metadata.namespace ?? 'default'}/${metadata.name}`;
  const path = `/api/v1/resources/${encodeURIComponent(kind)}/${encodeURIComponent(metadata.namespace ?? 'default')}/${encodeURIComponent(metadata.name)}`;
  const query = dryRun ? '?dryRun=true' : '';
  let etag: string | undefined;
  try {
    etag = (await api.call(path)).etag ?? '*';
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
  }
  const answer =
    etag === undefined
      ? await api.call<{ changeId?: string }>(`/api/v1/resources${query}`, { method: 'POST', body: manifest })
      : await api.call<{ changeId?: string }>(path + query, { method: 'PUT', body: manifest, headers: { 'if-match': etag } });
  process.stdout.write(`${label} ${dryRun ? 'would be ' : ''}${etag === undefined ? 'created' : 'replaced'}\n`);
  return dryRun ? undefined : answer.body.changeId;
}

/** Prints how the change arrived. Answers how many proxies rejected it. */
async function report(api: ApiClient, changeId: string, waitSeconds: number): Promise<number> {
  const change = (await api.call<Change>(`/api/v1/changes/${changeId}?wait=${waitSeconds}s`, { timeoutMs: (waitSeconds + 30) * 1000 }))
    .body;
  const inState = (state: string): Change['proxies'] => change.proxies.filter((proxy) => proxy.state === state);
  const rejected = inState('rejected');
  process.stderr.write(
    `  change ${change.id}: ${inState('acked').length} of ${change.proxies.length} proxies have it, ${inState('pending').length} pending, ${rejected.length} rejected it\n`,
  );
  for (const proxy of rejected) process.stderr.write(`  ✖ ${proxy.id}: ${proxy.message ?? ''}\n`);
  return rejected.length;
}
