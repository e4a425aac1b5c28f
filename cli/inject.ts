/** `meshwork inject`: a manifest or compose file in, the same with sidecars out. */
import { readFileSync } from 'node:fs';
import { injectCompose, isCompose } from '../control-plane/inject/compose.ts';
import { InjectError } from '../control-plane/inject/edit.ts';
import { injectKubernetes } from '../control-plane/inject/kubernetes.ts';
import type { InjectResult } from '../control-plane/inject/kubernetes.ts';
import { CommandError, EXIT } from './exit.ts';
import { parse, verb } from './parse.ts';
import { VERSION } from './version.ts';

const CLUSTER_CONTROL_PLANE = 'meshwork-control-plane.meshwork-system.svc:15012';
const COMPOSE_CONTROL_PLANE = 'http://meshwork-control-plane:15080';

export async function run(argv: readonly string[]): Promise<number> {
  const command = verb(
    'inject',
    'Add sidecars to a Kubernetes manifest or a compose file. The result goes to standard output, what was done to standard error.',
  )
    .argument('[file]', 'file to read, - for standard input', '-')
    .option('-f, --file <file>', 'the same as the argument')
    .option('--image <image>', 'image of the sidecar', `meshwork:${VERSION}`)
    .option('--control-plane <address>', `where sidecars find it (default: ${CLUSTER_CONTROL_PLANE}, in compose ${COMPOSE_CONTROL_PLANE})`)
    .addHelpText(
      'after',
      '\nExamples:\n  meshwork inject web.yaml | kubectl apply -f -\n  kubectl get deploy web -o yaml | meshwork inject -\n  meshwork inject compose.yaml > compose.mesh.yaml\n',
    );
  parse(command, argv);
  const options = command.opts<{ file?: string; image: string; controlPlane?: string }>();
  const file = options.file ?? (command.args[0] as string | undefined) ?? '-';
  const text = readInput(file);
  const name = file === '-' ? 'standard input' : file;
  let result: InjectResult;
  try {
    result = isCompose(text, name)
      ? injectCompose(text, name, { image: options.image, controlPlane: options.controlPlane ?? COMPOSE_CONTROL_PLANE })
      : injectKubernetes(text, name, { image: options.image, controlPlane: options.controlPlane ?? CLUSTER_CONTROL_PLANE });
  } catch (error) {
    if (error instanceof InjectError) throw new CommandError(error.message);
    throw error;
  }
  process.stdout.write(result.text);
  process.stderr.write(result.notes.map((note) => `${note}\n`).join(''));
  return EXIT.fine;
}

function readInput(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new CommandError(`cannot read ${file}: ${(error as Error).message}`, EXIT.usage);
  }
}
