/** `meshwork delete`: deletes one resource that was written through the API. */
import { DEFAULT_API, createApiClient } from './client.ts';
import { EXIT } from './exit.ts';
import { parse, verb } from './parse.ts';

export async function run(argv: readonly string[]): Promise<number> {
  const command = verb('delete', 'Delete a resource that was written through the API.')
    .argument('<kind>', 'for example HTTPRoute')
    .argument('<name>', 'its name')
    .option('-n, --namespace <name>', 'namespace', 'default')
    .option('--dry-run', 'say what would change, delete nothing', false)
    .option('--control-plane <address>', 'API of the control plane', process.env['MESHWORK_CONTROL_PLANE'] ?? DEFAULT_API);
  parse(command, argv);
  const [kind, name] = command.args as [string, string];
  const options = command.opts<{ namespace: string; dryRun: boolean; controlPlane: string }>();
  const api = createApiClient(options.controlPlane);
  try {
    const path = `/api/v1/resources/${[kind, options.namespace, name].map(encodeURIComponent).join('/')}`;
    const { etag } = await api.call(path);
    await api.call(path + (options.dryRun ? '?dryRun=true' : ''), { method: 'DELETE', headers: { 'if-match': etag ?? '*' } });
    process.stdout.write(`${kind} ${options.namespace}/${name} ${options.dryRun ? 'would be ' : ''}deleted\n`);
    return EXIT.fine;
  } finally {
    await api.close();
  }
}
