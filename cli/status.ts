/** `meshwork status`: which proxy has which configuration, and what is wrong. */
import { DEFAULT_API, createApiClient } from './client.ts';
import { EXIT } from './exit.ts';
import { parse, verb } from './parse.ts';
import { cellText, table } from './table.ts';

interface ProxyRow {
  readonly id: string;
  readonly connected: boolean;
  readonly state: string;
  readonly types: Readonly<Record<string, { readonly rejected?: { readonly message?: string } | null }>>;
}

interface ProblemRow {
  readonly resource: string;
  readonly field: string;
  readonly message: string;
  readonly origin?: { readonly source?: string; readonly file?: string; readonly line?: number; readonly column?: number };
}

/** Ends with 0 when every proxy acknowledged everything and no resource has a problem, else with 1. */
export async function run(argv: readonly string[]): Promise<number> {
  const command = verb('status', 'Which proxy has which configuration, and what is wrong. Ends with 1 when something is.')
    .option('-o, --output <format>', 'table or json', 'table')
    .option('--control-plane <address>', 'API of the control plane', process.env['MESHWORK_CONTROL_PLANE'] ?? DEFAULT_API);
  parse(command, argv);
  const options = command.opts<{ output: string; controlPlane: string }>();
  const api = createApiClient(options.controlPlane);
  try {
    const proxies = (await api.call<{ proxies: readonly ProxyRow[] }>('/api/v1/proxies')).body.proxies;
    const problems = (await api.call<{ problems: readonly ProblemRow[] }>('/api/v1/problems')).body.problems;
    const bad = problems.length > 0 || proxies.some((proxy) => proxy.state !== 'acked');
    if (options.output === 'json') process.stdout.write(`${JSON.stringify({ schemaVersion: 1, proxies, problems }, null, 2)}\n`);
    else process.stdout.write(describe(proxies, problems));
    return bad ? EXIT.problems : EXIT.fine;
  } finally {
    await api.close();
  }
}

function describe(proxies: readonly ProxyRow[], problems: readonly ProblemRow[]): string {
  const text = table(proxies, [
    { title: 'PROXY', cell: (proxy) => proxy.id },
    { title: 'CONNECTED', cell: (proxy) => (proxy.connected ? 'yes' : 'no') },
    { title: 'STATE', cell: (proxy) => proxy.state },
    {
      title: 'WHY',
      cell: (proxy) =>
        Object.values(proxy.types)
          .map((type) => cellText(type.rejected?.message))
          .find((message) => message !== '') ?? '',
    },
  ]);
  const lines = problems.map(({ origin, resource, field, message }) => {
    const place = [origin?.file ?? origin?.source, origin?.line, origin?.column].filter((part) => part !== undefined).join(':');
    return `✖ ${[place, resource, field].filter((part) => part !== '').join(' ')}: ${message}\n`;
  });
  return `${text}${lines.length === 0 ? '\nNo problems.\n' : `\n${lines.join('')}`}`;
}
