/** `meshwork proxy`: the sidecar alone, with Envoy's flags. */
import { runProxy } from '../proxy/main.ts';

export function run(argv: readonly string[]): Promise<number> {
  return runProxy(argv);
}
