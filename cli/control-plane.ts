/** `meshwork control-plane`: discovery, configuration and certificates for all sidecars. */
import { runControlPlane } from '../control-plane/main.ts';

export function run(argv: readonly string[]): Promise<number> {
  return runControlPlane(argv);
}
