/** What tests of filters share: a filter from its JSON, run around a service that answers with its name. */
import { ManualClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { ConfigReader } from './config.ts';
import { localResponse } from '../http1/error-response.ts';
import type { FilterDeps, FilterEntry } from './filter.ts';
import type { ProxyRequest, ProxyResponse, Service } from '../service.ts';
import type { JsonObject } from '../../xds/snapshot.ts';

export interface FilterHarness {
  readonly clock: ManualClock;
  /** Counts by name. */
  readonly counts: Map<string, number>;
  readonly deps: FilterDeps;
  /** Requests that came through. */
  readonly passed: ProxyRequest[];
  /** The filter around the service; the bare service when the filter has nothing to do. */
  around(entry: FilterEntry, config: JsonObject): Service;
}

/** `draws` are the random numbers in order, the last one for ever. */
export function filterHarness(draws: readonly number[] = [0]): FilterHarness {
  const clock = new ManualClock();
  const counts = new Map<string, number>();
  const passed: ProxyRequest[] = [];
  const count = (name: string) => (): void => void counts.set(name, (counts.get(name) ?? 0) + 1);
  const left = [...draws];
  const deps: FilterDeps = {
    clock,
    random: () => (left.length > 1 ? left.shift()! : left[0]!),
    log: silentLog,
    counter: count,
    counterAt: count,
    healthy: () => true,
  };
  const service: Service = (request) => {
    passed.push(request);
    return Promise.resolve(localResponse(request, 200, 'app'));
  };
  return {
    clock,
    counts,
    deps,
    passed,
    around: (entry, config) => entry.build(new ConfigReader('filter', config), deps)?.(service) ?? service,
  };
}

/** The body of a response that is all there. */
export function textOf(response: ProxyResponse): string {
  return response.body?.whole?.toString() ?? '';
}
