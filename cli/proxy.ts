/** `meshwork proxy`: the sidecar alone, with Envoy's flags. */
import { runProxy } from '../proxy/main.ts';
import { CommandError, EXIT } from './exit.ts';

export function run(argv: readonly string[]): Promise<number> {
  if (argv.length === 0 && process.env['MESHWORK_CONTROL_PLANE'] !== undefined) {
    throw new CommandError(
      'this container was injected for a cluster (MESHWORK_CONTROL_PLANE is set), and the control plane of this version does not know Kubernetes yet. ' +
        'Outside a cluster, `meshwork run` starts a sidecar that registers itself, and `meshwork proxy -c FILE` one from a bootstrap file.',
      EXIT.usage,
    );
  }
  return runProxy(argv);
}
