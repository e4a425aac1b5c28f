/** What the handlers of the API work with: the running parts of the control plane, as narrow as they need them. */
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Watch } from '../../lib/watch.ts';
import type { Changes } from '../changes.ts';
import type { Identities } from '../identity.ts';
import type { LoadTable } from '../load.ts';
import type { ControlPlaneMetrics } from '../metrics.ts';
import type { Proxies } from '../proxies.ts';
import type { ApiSource } from '../sources/api.ts';
import type { Registrations } from '../sources/registrations.ts';
import type { Spans } from '../tracing.ts';
import type { Problem, Resource, World } from '../world.ts';

/** Per proxy, the resources that a write would add, change or remove, by short type name. */
export interface AffectedProxy {
  readonly id: string;
  readonly types: Readonly<
    Record<string, { readonly added: readonly string[]; readonly changed: readonly string[]; readonly removed: readonly string[] }>
  >;
}

/** What a write would do. */
export interface Preview {
  readonly affected: readonly AffectedProxy[];
  /** What would be wrong with the API's resources then: references that lead nowhere, and the like. */
  readonly problems: readonly Problem[];
}

export interface ApiContext {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: ControlPlaneMetrics;
  readonly spans: Spans;
  readonly world: Watch<World>;
  /** Every resource of every source. */
  readonly resources: () => readonly Resource[];
  /** The one of `kind namespace/name`. */
  readonly resource: (kindAndKey: string) => Resource | undefined;
  readonly api: ApiSource;
  readonly registrations: Registrations;
  readonly proxies: Proxies;
  readonly load: Pick<LoadTable, 'list'>;
  readonly changes: Changes;
  readonly identities: Identities;
  /** The proxies that would get something else if the API held exactly these resources. */
  readonly affectedBy: (apiResources: readonly Resource[]) => Preview;
  /** Where proxies connect: `127.0.0.1:15010`. */
  readonly addresses: () => { readonly xds: string; readonly xdsTls: string };
  readonly startedAtMs: number;
}
