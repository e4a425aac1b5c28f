/** `meshwork get`: lists what the control plane knows. */
import { DEFAULT_API, createApiClient } from './client.ts';
import { CommandError, EXIT } from './exit.ts';
import { parse, verb } from './parse.ts';
import { cellText, table } from './table.ts';
import type { Column } from './table.ts';

type Row = Readonly<Record<string, unknown>>;

/** Collections and the fields that are worth a column; the rest is in `-o json`. */
const COLLECTIONS: Readonly<Record<string, readonly string[]>> = {
  services: ['namespace', 'name', 'ports', 'endpoints'],
  endpoints: ['service', 'address', 'port', 'weight', 'ready', 'workload', 'identity'],
  routes: ['kind', 'namespace', 'name'],
  workloads: ['namespace', 'name', 'address', 'ports', 'weight', 'healthy'],
  proxies: ['id', 'connected', 'state', 'flavour', 'identity'],
  certificates: ['spiffeId', 'serial', 'notAfter', 'expiresInMs'],
  changes: ['id', 'source', 'resources', 'createdAt'],
  problems: ['resource', 'field', 'message', 'origin'],
  resources: ['kind', 'namespace', 'name', 'source'],
};

export async function run(argv: readonly string[]): Promise<number> {
  const command = verb('get', `List ${Object.keys(COLLECTIONS).join(', ')}.`)
    .argument('<collection>', 'what to list')
    .argument('[name]', 'only rows whose name, id or service contains this')
    .option('-o, --output <format>', 'table or json', 'table')
    .option('--control-plane <address>', 'API of the control plane', process.env['MESHWORK_CONTROL_PLANE'] ?? DEFAULT_API);
  parse(command, argv);
  const [collection, name] = command.args as [string, string | undefined];
  const options = command.opts<{ output: string; controlPlane: string }>();
  const fields = COLLECTIONS[collection] ?? COLLECTIONS[`${collection}s`];
  if (fields === undefined)
    throw new CommandError(`there is no collection "${collection}": take one of ${Object.keys(COLLECTIONS).join(', ')}`, EXIT.usage);
  if (options.output !== 'table' && options.output !== 'json')
    throw new CommandError(`--output must be table or json, received "${options.output}"`, EXIT.usage);
  const api = createApiClient(options.controlPlane);
  try {
    const path = COLLECTIONS[collection] === undefined ? `${collection}s` : collection;
    const items = (await api.call<Readonly<Record<string, readonly Row[]>>>(`/api/v1/${path}`)).body[path] ?? [];
    const rows =
      name === undefined ? items : items.filter((row) => ['name', 'id', 'service'].some((field) => cellText(row[field]).includes(name)));
    const columns: Column<Row>[] = fields.map((field) => ({ title: field.toUpperCase(), cell: (row) => cell(row, field) }));
    process.stdout.write(
      options.output === 'json' ? `${JSON.stringify({ schemaVersion: 1, items: rows }, null, 2)}\n` : table(rows, columns),
    );
    return EXIT.fine;
  } finally {
    await api.close();
  }
}

function cell(row: Row, field: string): string {
  const value = row[field] ?? (row['metadata'] as Row | undefined)?.[field] ?? (row['origin'] as Row | undefined)?.[field];
  if (field === 'endpoints' && Array.isArray(value)) return String(value.length);
  if (field === 'ports' && Array.isArray(value)) return value.map((port) => cellText((port as Row)['port'])).join(',');
  return cellText(value);
}
