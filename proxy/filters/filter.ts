/** What an HTTP filter is to the registry: how it is named, and how its configuration becomes a Filter at push. */
import type { ConfigReader } from './config.ts';
import type { Filter } from '../service.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';

/** What filters may use of the world. */
export interface FilterDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** A counter under the connection manager's prefix: `counter('rbac.denied')` is `http.<stat_prefix>.rbac.denied`. Bound once, at push. */
  readonly counter: (name: string) => () => void;
  /** A counter by its full name, for filters that bring their own prefix. */
  readonly counterAt: (fullName: string) => () => void;
  /** False after the admin's `/healthcheck/fail` or while draining. */
  readonly healthy: () => boolean;
}

/** One filter. `build` runs once per push and place; the Filter it answers may be composed around several routes, and they share its state. */
export interface FilterEntry {
  /** Full name of the configuration's message. */
  readonly type: string;
  /** Names that stand for it when the configuration has no type, old ones included. */
  readonly names: readonly string[];
  /** From the listener's configuration. Undefined = nothing to do. Throws ConfigError. */
  build(config: ConfigReader, deps: FilterDeps): Filter | undefined;
  /** From a route's own configuration, of one of `routeTypes`; where absent, a route's configuration is read like the listener's. */
  readonly routeTypes?: readonly string[];
  buildForRoute?(config: ConfigReader, listenerConfig: ConfigReader, deps: FilterDeps): Filter | undefined;
}
