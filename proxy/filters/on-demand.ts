/** Asks for routes that are not known yet (envoy.extensions.filters.http.on_demand.v3). The routing does that itself: the filter says that it shall. */
import { ON_DEMAND } from '../on-demand/routing.ts';
import type { FilterEntry } from './filter.ts';

export const onDemand: FilterEntry = {
  ...ON_DEMAND,
  build: () => undefined,
  routeTypes: ['envoy.extensions.filters.http.on_demand.v3.PerRouteConfig'],
  buildForRoute: () => undefined,
};
