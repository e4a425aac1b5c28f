/** What clients report of their load (LRS): running totals per client and cluster, bounded, for the API. */
import type { Clock } from '../lib/clock.ts';
import type { ClusterLoad } from '../xds/load-report.ts';
import type { NodeInfo } from '../xds/session/messages.ts';

/** Totals since the first report of this client and cluster; `inProgress` is what its last report said. */
export interface LoadView {
  readonly node: string;
  readonly cluster: string;
  readonly issued: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly dropped: number;
  readonly inProgress: number;
  readonly reports: number;
  readonly lastReportAt: string;
}

export interface LoadTable {
  report(node: NodeInfo, clusters: readonly ClusterLoad[]): void;
  /** Sorted by client, then cluster. */
  list(): readonly LoadView[];
}

/** Pairs of client and cluster; beyond it the ones that were silent for longest go. */
const ENTRIES_MAX = 20_000;
const NAME_CHARS_MAX = 512;

export function createLoadTable({ clock, entriesMax = ENTRIES_MAX }: { clock: Clock; entriesMax?: number }): LoadTable {
  /** In order of their last report. */
  const entries = new Map<string, LoadView>();
  const take = (node: string, load: ClusterLoad): void => {
    const key = `${node} ${load.cluster}`;
    const before = entries.get(key);
    const sum = (counter: 'issued' | 'succeeded' | 'failed' | 'inProgress'): number =>
      load.localities.reduce((total, locality) => total + locality[counter], 0);
    entries.delete(key);
    entries.set(key, {
      node,
      cluster: load.cluster,
      issued: (before?.issued ?? 0) + sum('issued'),
      succeeded: (before?.succeeded ?? 0) + sum('succeeded'),
      failed: (before?.failed ?? 0) + sum('failed'),
      dropped: (before?.dropped ?? 0) + load.dropped,
      inProgress: sum('inProgress'),
      reports: (before?.reports ?? 0) + 1,
      lastReportAt: new Date(clock.wallMs()).toISOString(),
    });
    if (entries.size > entriesMax) entries.delete(entries.keys().next().value!);
  };
  return {
    report(node, clusters) {
      // Names are the client's own words, so their length is bounded here.
      if (node.id.length > NAME_CHARS_MAX) return;
      for (const load of clusters) if (load.cluster.length <= NAME_CHARS_MAX) take(node.id, load);
    },
    list: () => [...entries.values()].sort((left, right) => order(left.node, right.node) || order(left.cluster, right.cluster)),
  };
}

function order(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}
