/** Envoy's way to name statistics: a scope such as `cluster.reviews` whose tags become Prometheus labels. */
import type { Counter, Gauge, Histogram, Labels, Registry, Series } from './metrics.ts';

/** Names are relative: `upstream_rq_total` is `cluster.reviews.upstream_rq_total` and `envoy_cluster_upstream_rq_total{envoy_cluster_name="reviews"}`. */
export interface Scope {
  counter(name: string, tags?: Labels, dotted?: string): Counter;
  gauge(name: string, tags?: Labels, dotted?: string): Gauge;
  histogram(name: string, tags?: Labels, dotted?: string): Histogram;
  /** Lets go of every series made here: they expire once idle. Counters keep their values if the scope is made again before that. */
  release(): void;
}

/**
 * Makes a scope. `kind` is the first word (`cluster`, `http`, `listener`), `dotted` the whole prefix of the dotted names, `tags` the labels of all series.
 * A name with dots (`circuit_breakers.default.rq_open`) keeps them in the dotted name and has underscores in Prometheus. When a tag is taken out of
 * the middle of a name, give the dotted tail apart: `counter('upstream_rq_xx', { envoy_response_code_class: '2' }, 'upstream_rq_2xx')`.
 */
export function envoyScope(registry: Registry, kind: string, dotted: string, tags: Labels): Scope {
  const made = new Set<Series>();
  const prometheus = (name: string): string => `envoy_${kind}_${name.replaceAll('.', '_')}`;
  const keep = <S extends Series>(series: S): S => {
    made.add(series);
    return series;
  };
  const join = (more: Labels | undefined): Labels => (more === undefined ? tags : { ...more, ...tags });
  return {
    counter: (name, more, tail) => keep(registry.counter(prometheus(name), join(more), { dotted: `${dotted}.${tail ?? name}` })),
    gauge: (name, more, tail) => keep(registry.gauge(prometheus(name), join(more), { dotted: `${dotted}.${tail ?? name}` })),
    histogram: (name, more, tail) => keep(registry.histogram(prometheus(name), join(more), { dotted: `${dotted}.${tail ?? name}` })),
    release: () => {
      for (const series of made) series.release();
    },
  };
}
