/** Mirrored requests: copies that go to another cluster and are forgotten, never at the cost of the request they copy (rule R7). */
import type { Random } from '../../lib/random.ts';
import type { Counter } from '../../lib/metrics.ts';
import type { Headers } from '../headers.ts';
import type { Body, BodySink, ProxyRequest, RequestInfo } from '../service.ts';
import type { ClusterRef } from '../upstream/cluster-pool.ts';
import { BodyTap } from '../upstream/body-tap.ts';
import { wholeBody } from '../http1/body.ts';
import type { ProxyError } from '../errors.ts';

export interface MirrorTarget {
  readonly cluster: ClusterRef;
  /** Share of requests, 0 to 1. */
  readonly fraction: number;
  /** Appends `-shadow` to the copy's host. */
  readonly shadowHost: boolean;
}

export interface MirrorDeps {
  readonly random: Random;
  /** Copies that were not sent: body too large, or too many under way. */
  readonly dropped: Counter;
}

/** A copy's body is collected up to this; larger requests are not mirrored. */
export const MIRROR_BYTES_MAX = 64 * 1024;
/** Copies under way at once per route; more are dropped. */
const MIRRORS_MAX = 256;

/** Answers a function that sends the copies of a request. It looks at the request before the primary is sent and may wrap its body. */
export function compileMirrors(targets: readonly MirrorTarget[], deps: MirrorDeps): ((request: ProxyRequest) => void) | undefined {
  if (targets.length === 0) return undefined;
  const state = { active: 0 };
  return (request) => {
    const chosen = targets.filter((target) => target.fraction >= 1 || deps.random() < target.fraction);
    if (chosen.length === 0 || request.upgrade !== undefined) return;
    const heads = chosen.map((target) => ({ target, copy: copyHead(request, target) }));
    const send = (body: Body | undefined): void => {
      for (const { target, copy } of heads) {
        if (state.active >= MIRRORS_MAX || target.cluster.current === undefined) {
          deps.dropped.inc();
          continue;
        }
        copy.body = body;
        state.active++;
        void forget(target, copy).finally(() => state.active--);
      }
    };
    if (request.body === undefined || request.body.whole !== undefined) send(request.body);
    else request.body = new Collecting(request.body, (bytes) => (bytes === undefined ? deps.dropped.inc() : send(wholeBody(bytes))));
  };
}

/** Sends a copy and drops its answer, whatever it is. */
async function forget(target: MirrorTarget, copy: ProxyRequest): Promise<void> {
  try {
    const response = await target.cluster.current!.send(copy);
    response.tunnel?.socket.destroy();
    response.tunnel?.closed();
    if (response.body !== undefined && response.body.whole === undefined) await drained(response.body);
  } catch {
    // The copy failed, which its cluster has counted. The primary must not notice.
  }
}

function drained(body: Body): Promise<void> {
  return new Promise((resolve) => {
    const sink: BodySink = { data: () => true, end: () => resolve(), fail: () => resolve() };
    body.pipe(sink);
  });
}

/** Passes a body on and keeps a copy while it is small. */
class Collecting extends BodyTap {
  #chunks: Buffer[] | undefined = [];
  #bytes = 0;
  readonly #done: (bytes: Buffer | undefined) => void;

  constructor(source: Body, done: (bytes: Buffer | undefined) => void) {
    super(source);
    this.#done = done;
  }

  protected override touched(chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#bytes > MIRROR_BYTES_MAX) this.#chunks = undefined;
    else this.#chunks?.push(Buffer.from(chunk));
  }

  protected override over(error: ProxyError | undefined): void {
    this.#done(error === undefined && this.#chunks !== undefined ? Buffer.concat(this.#chunks) : undefined);
    this.#chunks = undefined;
  }
}

function copyHead(request: ProxyRequest, target: MirrorTarget): ProxyRequest {
  const headers: Headers = request.headers.clone();
  headers.remove('expect');
  return {
    connection: request.connection,
    method: request.method,
    scheme: request.scheme,
    authority: target.shadowHost ? shadow(request.authority) : request.authority,
    path: request.path,
    headers,
    body: undefined,
    upgrade: undefined,
    abort: undefined,
    onInterim: undefined,
    onDone: undefined,
    startMs: request.startMs,
    info: copyInfo(request.info),
  };
}

function copyInfo(info: RequestInfo): RequestInfo {
  return {
    ...info,
    endpoint: undefined,
    triedEndpoints: undefined,
    attemptCount: 1,
    responseFlags: '',
    responseDetails: '',
    filterState: undefined,
  };
}

/** `host` is `host-shadow`, `host:port` is `host-shadow:port`. */
function shadow(authority: string): string {
  const colon = authority.endsWith(']') ? -1 : authority.lastIndexOf(':');
  return colon === -1 ? `${authority}-shadow` : `${authority.slice(0, colon)}-shadow${authority.slice(colon)}`;
}
