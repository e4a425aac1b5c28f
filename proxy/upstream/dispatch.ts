/** One attempt through a cluster: breaker, pick, endpoint, and the counts that end with the answer's last byte. */
import { isWhole } from '../http1/body.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Random } from '../../lib/random.ts';
import { observeLatency } from '../balancers/peak-ewma.ts';
import { ProxyError } from '../errors.ts';
import type { Picker, ProxyRequest, ProxyResponse, Reply } from '../service.ts';
import { BodyTap } from './body-tap.ts';
import type { ClusterStats } from './cluster-stats.ts';
import type { Priority } from './cluster.ts';
import type { Endpoint } from './endpoint.ts';
import { PoolExchange } from './exchange.ts';
import type { Ejections } from './ejections.ts';
import type { Limits } from './limits.ts';
import type { Member } from './member.ts';

/** The cluster as an attempt sees it: what a push or a change of health swaps is read anew each time. */
interface Source {
  readonly name: string;
  readonly stats: ClusterStats;
  readonly limits: { readonly DEFAULT: Limits; readonly HIGH: Limits };
  readonly warm: boolean;
  readonly panic: boolean;
  readonly picker: Picker;
  readonly dropPercent: number;
  readonly needsLatency: boolean;
  readonly members: ReadonlyMap<string, Member>;
}

/** How often a request is moved away from an endpoint whose probe is under way. */
const PROBE_RESELECTIONS_MAX = 5;
/** What a refusal counts as in response time: saying no quickly must not attract more requests (rule W8). */
const REFUSAL_MS = 1_000;

/** gRPC failures arrive with status 200; these are the codes that mean that the endpoint is not well, as HTTP has them. */
const GRPC_FAILURES: Readonly<Record<string, number>> = { '2': 500, '4': 504, '8': 429, '13': 500, '14': 503, '15': 500 };

export class Dispatch {
  readonly #source: Source;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #ejections: Ejections;

  constructor(source: Source, deps: { readonly clock: Clock; readonly random: Random }, ejections: Ejections) {
    this.#source = source;
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#ejections = ejections;
  }

  /** Sends one attempt. What refuses it may call the reply before this returns. */
  attempt(request: ProxyRequest, priority: Priority, autoHost: boolean, reply: Reply, charged: ClusterStats): void {
    const source = this.#source;
    const limits = source.limits[priority];
    const info = request.info;
    info.clusterName = source.name;
    const drop = source.dropPercent;
    if (drop > 0 && this.#random() * 100 < drop) {
      source.stats.dropped.inc();
      reply.failed(new ProxyError('dropOverload'));
      return;
    }
    const member = this.#choose(request);
    if (source.panic) source.stats.panic.inc();
    if (member === undefined) {
      source.stats.noneHealthy.inc();
      charged.answered(503);
      reply.failed(new ProxyError('noHealthyEndpoint', source.warm ? '' : `The endpoints of cluster ${source.name} are not known yet.`));
      return;
    }
    if (!limits.requests.tryTake()) {
      if (member.outlier.probe === 'under way') member.outlier.probe = 'wanted';
      charged.answered(503);
      reply.failed(new ProxyError('overflow', `Cluster ${source.name} has ${limits.requests.max} requests under way.`));
      return;
    }
    info.endpoint = member;
    if (autoHost && member.hostname !== '') request.authority = member.hostname;
    member.active++;
    member.requests++;
    const startMs = info.attemptCount > 1 ? this.#clock.now() : request.startMs;
    member.start(new Attempt(request, this, member, limits, startMs, reply, charged));
  }

  /** For the attempt: the response head is there. */
  answered(attempt: Attempt, response: ProxyResponse): void {
    const { member, limits, reply } = attempt;
    this.#answered(attempt, response);
    this.#watchEnd(member, limits, response);
    reply.answered(response);
  }

  /** For the attempt: there will be no answer. */
  failed(attempt: Attempt, error: ProxyError): void {
    this.#failed(attempt, error);
    this.#release(attempt.member, attempt.limits);
    attempt.reply.failed(error);
  }

  #choose(request: ProxyRequest): Member | undefined {
    let member = this.#source.picker(request) as Member | undefined;
    if (member === undefined) return undefined;
    const tried = request.info.triedEndpoints;
    if (tried !== undefined) {
      const reselectionsMax = request.info.reselectionsMax ?? 1;
      for (let i = 0; i < reselectionsMax && member !== undefined && tried.includes(member); i++)
        member = this.#source.picker(request) as Member | undefined;
      if (member !== undefined && tried.includes(member)) member = this.#untried(tried) ?? member;
    }
    if (member === undefined || member.outlier.probe === 'none') return member;
    for (let i = 0; i < PROBE_RESELECTIONS_MAX && member !== undefined && member.outlier.probe === 'under way'; i++) {
      member = this.#source.picker(request) as Member | undefined;
    }
    if (member !== undefined && member.outlier.probe === 'wanted') member.outlier.probe = 'under way';
    return member;
  }

  /**
   * The healthy member of the best priority with the fewest requests that this request has not tried. Picking again is not enough: an endpoint that fails at once is
   * always the least busy one, so least request comes back to it every time.
   */
  #untried(tried: readonly Endpoint[]): Member | undefined {
    let best: Member | undefined;
    for (const member of this.#source.members.values()) {
      if (member.health !== 'healthy' || member.removed || member.weight === 0 || tried.includes(member)) continue;
      const better =
        best === undefined || member.priority < best.priority || (member.priority === best.priority && member.active < best.active);
      if (better) best = member;
    }
    return best;
  }

  #answered({ member, charged, startMs, request }: Attempt, response: ProxyResponse): void {
    const nowMs = this.#clock.now();
    const tookMs = nowMs - startMs;
    request.info.answeredMs = nowMs;
    charged.answered(response.status);
    charged.rqTime.record(tookMs);
    const status = statusOf(response);
    if (this.#source.needsLatency) observeLatency(member, refuses(status) ? Math.max(REFUSAL_MS, tookMs) : tookMs, nowMs);
    if (status >= 500) member.failures++;
    this.#ejections.detector?.onStatus(member.outlier, status, nowMs);
  }

  #failed({ member, charged }: Attempt, error: ProxyError): void {
    if (error.code === 'downstreamReset') {
      this.#source.stats.rqCancelled.inc();
      if (member.outlier.probe === 'under way') member.outlier.probe = 'wanted';
      return;
    }
    if (error.code === 'overflow') {
      if (member.outlier.probe === 'under way') member.outlier.probe = 'wanted';
      charged.answered(503);
      return;
    }
    member.failures++;
    if (error.code === 'upstreamTimeout' || error.code === 'perTryTimeout') member.timeouts++;
    // Envoy ends a stream that is silent or old on the client's side: no answer of the cluster's.
    if (error.code !== 'streamIdleTimeout' && error.code !== 'maxDuration') charged.answered(error.row.status);
    const nowMs = this.#clock.now();
    if (this.#source.needsLatency) observeLatency(member, REFUSAL_MS, nowMs);
    this.#ejections.detector?.onLocalFailure(member.outlier, nowMs);
  }

  #release(member: Member, limits: Limits): void {
    member.active--;
    limits.requests.give();
  }

  /** The request is under way until its answer's last byte, or the end of its tunnel. */
  #watchEnd(member: Member, limits: Limits, response: ProxyResponse): void {
    const tunnel = response.tunnel;
    if (tunnel !== undefined) {
      const release = (): void => this.#release(member, limits);
      response.tunnel = { socket: tunnel.socket, head: tunnel.head, closed: once(() => (release(), tunnel.closed())) };
      return;
    }
    const body = response.body;
    if (body === undefined || isWhole(body)) {
      this.#release(member, limits);
      return;
    }
    response.body = new InFlightBody(body, (error) => {
      this.#release(member, limits);
      if (error?.code === 'upstreamBodyReset') {
        member.failures++;
        this.#ejections.detector?.onLocalFailure(member.outlier, this.#clock.now());
      }
    });
  }
}

/** One attempt at one endpoint. */
class Attempt extends PoolExchange {
  readonly #dispatch: Dispatch;
  readonly member: Member;
  readonly limits: Limits;
  readonly startMs: number;
  readonly reply: Reply;
  /** Where its answer counts. */
  readonly charged: ClusterStats;

  constructor(
    request: ProxyRequest,
    dispatch: Dispatch,
    member: Member,
    limits: Limits,
    startMs: number,
    reply: Reply,
    charged: ClusterStats,
  ) {
    super(request);
    this.#dispatch = dispatch;
    this.member = member;
    this.limits = limits;
    this.startMs = startMs;
    this.reply = reply;
    this.charged = charged;
  }

  answered(response: ProxyResponse): void {
    this.#dispatch.answered(this, response);
  }

  over(error: ProxyError): void {
    this.#dispatch.failed(this, error);
  }
}

class InFlightBody extends BodyTap {
  readonly #done: (error: ProxyError | undefined) => void;

  constructor(source: ConstructorParameters<typeof BodyTap>[0], done: (error: ProxyError | undefined) => void) {
    super(source);
    this.#done = done;
  }

  protected override over(error: ProxyError | undefined): void {
    this.#done(error);
  }
}

function once(fn: () => void): () => void {
  let called = false;
  return () => {
    if (called) return;
    called = true;
    fn();
  };
}

/** The status that judges an endpoint: a gRPC answer without a message has its own in the head. */
function statusOf(response: ProxyResponse): number {
  if (response.status !== 200) return response.status;
  const grpcStatus = response.headers.get('grpc-status');
  return grpcStatus === undefined ? 200 : (GRPC_FAILURES[grpcStatus] ?? 200);
}

/** Too busy or not there: answers that cost the endpoint nothing. */
function refuses(status: number): boolean {
  return status === 429 || status === 503;
}
