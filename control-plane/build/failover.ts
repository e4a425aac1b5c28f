/** Which instances take requests first and which stand by, as a `BackendPolicy` orders them: by the caller's place, by a list of places, or both. */
import type { Locality } from '../../xds/snapshot.ts';
import type { BackendPolicySpec } from '../kinds/backend-policy.ts';

export interface Failover {
  /** The caller's own zone comes first and its region next. */
  readonly byCaller: boolean;
  /** Places in the order in which they take requests; those not named come after all of them. */
  readonly order: readonly string[];
}

/** Undefined = all places take requests alike. */
export function failoverOf(spec: BackendPolicySpec | undefined): Failover | undefined {
  const byCaller = spec?.loadBalancing?.localityFailover ?? false;
  const order = spec?.loadBalancing?.localityPriority ?? [];
  return byCaller || order.length > 0 ? { byCaller, order } : undefined;
}

/** Envoy's priorities of these places for a caller at `from`: 0 first, without gaps, since a client refuses a list that has one. */
export function prioritiesOf(failover: Failover | undefined, from: Locality, places: readonly Locality[]): readonly number[] {
  if (failover === undefined) return places.map(() => 0);
  return withoutGaps(places.map((place) => rankOf(failover, from, place)));
}

/** The same order in the numbers from 0 on. */
export function withoutGaps(ranks: readonly number[]): readonly number[] {
  const used = [...new Set(ranks)].sort((left, right) => left - right);
  return ranks.map((rank) => used.indexOf(rank));
}

/** How near a place is: 0 = the same zone, 1 = the same region, 2 = elsewhere or not known. */
export function distance(from: Locality, place: Locality): number {
  const sameRegion = from.region !== '' && from.region === place.region;
  // EndpointSlices name zones without their regions, so a zone counts by itself unless both regions are known and differ.
  const regionUnknown = from.region === '' || place.region === '';
  if (from.zone !== '' && from.zone === place.zone && (sameRegion || regionUnknown)) return 0;
  return sameRegion ? 1 : 2;
}

function rankOf({ byCaller, order }: Failover, from: Locality, place: Locality): number {
  const near = byCaller ? distance(from, place) : 2;
  if (near < 2) return near;
  const named = order.findIndex((entry) => names(entry, place));
  return 2 + (named === -1 ? order.length : named);
}

/** `eu`, `eu/eu-1` or `eu/eu-1/rack-3`; a zone whose region is not known is `/eu-1`. */
function names(entry: string, { region, zone, subZone }: Locality): boolean {
  return entry === region || entry === `${region}/${zone}` || entry === `${region}/${zone}/${subZone}`;
}
