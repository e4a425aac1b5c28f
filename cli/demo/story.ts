/** What happens in the demo: canary, a broken instance, a slow one, a rotation, each checked against what the mesh then says. */
import { request } from 'undici';
import { sleep } from '../../lib/clock.ts';
import type { Clock } from '../../lib/clock.ts';
import type { ApiClient } from '../client.ts';
import type { Outcome } from './load.ts';
import { reviewsRoute } from './mesh.ts';
import { certificateSerials, ejectedBy, listProxies, mtlsEdgesInto, summarise } from './observe.ts';
import type { ProxySummary } from './observe.ts';

/** The demo's state, read by the view and by the report. */
export interface Story {
  readonly startedMs: number;
  outcomes: readonly Outcome[];
  weights: { v1: number; v2: number };
  edges: readonly string[];
  /** Instances that some sidecar has ejected now, and that one had at any time. */
  ejectedNow: readonly string[];
  readonly ejectedEver: Set<string>;
  rotations: number;
  faults: readonly string[];
  readonly events: string[];
  readonly failed: number;
}

export interface StoryDeps {
  readonly clock: Clock;
  readonly api: ApiClient;
  /** `host:port` of a sidecar's inbound port -> instance name. */
  readonly instanceOf: ReadonlyMap<string, string>;
  /** Instance name -> the application's own port. */
  readonly applicationPort: ReadonlyMap<string, number>;
}

export interface StoryTeller {
  readonly story: Story;
  /** Moves the canary; resolves when every proxy has acknowledged. */
  setWeights(v1: number, v2: number): Promise<void>;
  toggleBroken(instance: string): Promise<void>;
  toggleSlow(instance: string, delayMs: number): Promise<void>;
  /** Resolves when every proxy has a new certificate. */
  rotate(): Promise<void>;
  /** Reads edges and ejections. */
  observe(): Promise<void>;
  proxies(): Promise<ProxySummary[]>;
}

const POLL_MS = 100;
const ROTATION_POLLS_MAX = 100;

export function createStory(deps: StoryDeps): StoryTeller {
  const { clock, api } = deps;
  const story: Story = {
    startedMs: clock.now(),
    outcomes: [],
    weights: { v1: 0, v2: 0 },
    edges: [],
    ejectedNow: [],
    ejectedEver: new Set(),
    rotations: 0,
    faults: [],
    events: [],
    get failed() {
      return this.outcomes.filter((outcome) => !outcome.ok).length;
    },
  };
  const tell = (event: string): void =>
    void story.events.push(`${((clock.now() - story.startedMs) / 1000).toFixed(1).padStart(6)} s  ${event}`);
  return {
    story,
    setWeights: (v1, v2) => setWeights(deps, story, tell, { v1, v2 }),
    toggleBroken: (instance) => toggle(deps, story, tell, instance, 'is broken', { broken: true }, { broken: false }),
    toggleSlow: (instance, delayMs) => toggle(deps, story, tell, instance, `answers ${delayMs} ms late`, { delayMs }, { delayMs: 0 }),
    rotate: () => rotate(deps, story, tell),
    observe: () => observe(deps, story, tell),
    proxies: async () => summarise(await listProxies(api)),
  };
}

type Tell = (event: string) => void;

async function setWeights({ api, clock }: StoryDeps, story: Story, tell: Tell, weights: { v1: number; v2: number }): Promise<void> {
  const path = '/api/v1/resources/HTTPRoute/default/reviews';
  const startMs = clock.now();
  const current = await api.call<unknown>(path);
  const written = await api.call<{ changeId: string }>(path, {
    method: 'PUT',
    body: reviewsRoute(weights),
    headers: { 'if-match': current.etag ?? '*' },
  });
  const change = await api.call<{ proxies: readonly { state: string }[] }>(`/api/v1/changes/${written.body.changeId}?wait=5s`);
  story.weights = weights;
  const states = change.body.proxies;
  const acked = states.filter((proxy) => proxy.state === 'acked').length;
  tell(
    `reviews v1 ${weights.v1} % : v2 ${weights.v2} %, acknowledged by ${acked} of ${states.length} proxies after ${Math.round(clock.now() - startMs)} ms`,
  );
}

async function toggle(
  { applicationPort }: StoryDeps,
  story: Story,
  tell: Tell,
  instance: string,
  what: string,
  on: object,
  off: object,
): Promise<void> {
  const fault = `${instance} ${what}`;
  const active = story.faults.includes(fault);
  const port = applicationPort.get(instance);
  if (port === undefined) throw new Error(`there is no instance ${instance}`);
  const answer = await request(`http://127.0.0.1:${port}/demo/behaviour`, { method: 'POST', body: JSON.stringify(active ? off : on) });
  await answer.body.dump();
  story.faults = active ? story.faults.filter((other) => other !== fault) : [...story.faults, fault];
  tell(active ? `${instance} is well again` : fault);
}

async function rotate({ api, clock }: StoryDeps, story: Story, tell: Tell): Promise<void> {
  const before = await certificateSerials(api);
  const startMs = clock.now();
  await api.call('/api/v1/certificates/rotate', { method: 'POST', body: {} });
  for (let poll = 0; poll < ROTATION_POLLS_MAX; poll++) {
    const after = await certificateSerials(api);
    if ([...before].every(([proxy, serial]) => after.has(proxy) && after.get(proxy) !== serial)) {
      story.rotations++;
      tell(`all ${after.size} certificates rotated after ${Math.round(clock.now() - startMs)} ms`);
      return;
    }
    await sleep(clock, POLL_MS);
  }
  tell('the rotation did not reach every proxy in time');
}

async function observe({ api, instanceOf }: StoryDeps, story: Story, tell: Tell): Promise<void> {
  const ids = (await listProxies(api)).filter((proxy) => proxy.connected).map((proxy) => proxy.id);
  const [ejected, edges] = await Promise.all([
    Promise.all(ids.map((id) => ejectedBy(api, id))),
    Promise.all(ids.map((id) => mtlsEdgesInto(api, id))),
  ]);
  story.edges = [...new Set(edges.flat())].toSorted();
  const now = [...new Set(ejected.flat())].map((address) => instanceOf.get(address) ?? address).toSorted();
  for (const instance of now)
    if (!story.ejectedNow.includes(instance)) tell(`${instance} is ejected: too many 5xx in a row; callers are served by the others`);
  for (const instance of story.ejectedNow) if (!now.includes(instance)) tell(`${instance} gets traffic again`);
  story.ejectedNow = now;
  for (const instance of now) story.ejectedEver.add(instance);
}
