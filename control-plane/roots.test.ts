import { expect, test } from '@jest/globals';
import { createAuthority } from '../certs/authority.ts';
import { ManualClock } from '../lib/clock.ts';
import { createLog } from '../lib/log.ts';
import { SECRET_TYPE } from '../xds/session/type-urls.ts';
import type { ConnectedProxy, Proxies } from './proxies.ts';
import type { Publisher } from './publish.ts';
import { restoreAuthority, restoreTokens, tendRoots } from './roots.ts';
import { createMemoryStore } from './store/memory.ts';

test('the authority of before is found again, and one of another trust domain is refused', () => {
  const store = createMemoryStore();
  const clock = new ManualClock();
  const first = restoreAuthority(store, 'one.example', clock);
  expect(restoreAuthority(store, 'one.example', clock).bundle.current.pem).toBe(first.bundle.current.pem);
  expect(() => restoreAuthority(store, 'two.example', clock)).toThrow(/one\.example.*two\.example/);
});

test('a token is spent across a restart too, and only its hash is stored', () => {
  const store = createMemoryStore();
  const clock = new ManualClock();
  const tokens = restoreTokens(store, 'cluster.local', clock);
  const spent = tokens.issue('spiffe://cluster.local/ns/a/sa/b').token;
  const kept = tokens.issue('spiffe://cluster.local/ns/a/sa/c').token;
  expect(tokens.redeem(spent).ok).toBe(true);
  expect(JSON.stringify(store.list('tokens'))).not.toContain(spent);
  const after = restoreTokens(store, 'cluster.local', clock);
  expect(after.redeem(spent)).toMatchObject({ ok: false, reason: 'replayed' });
  expect(after.redeem(kept)).toMatchObject({ ok: true, binding: { spiffeId: 'spiffe://cluster.local/ns/a/sa/c' } });
});

function setUp() {
  const clock = new ManualClock();
  const authority = createAuthority({ trustDomain: 'cluster.local', clock, rootTtlMs: 3_600_000, leafTtlMs: 60_000 });
  let publish = 1;
  const types = new Map([[SECRET_TYPE, { changedAt: 1, changedAtMs: 0, ackedThrough: 1 }]]);
  const proxy = { id: 'a', publish: 1, types } as unknown as ConnectedProxy;
  const proxies = { connected: new Set([proxy]) } as unknown as Proxies;
  const publisher = { touch: () => ++publish } as unknown as Publisher;
  const lines: string[] = [];
  const log = createLog({ clock, format: 'text', write: (line) => lines.push(line) });
  const stop = tendRoots(authority, { clock, log, proxies, publisher });
  const ack = (): void => {
    (proxy as { publish: number }).publish = publish;
    types.get(SECRET_TYPE)!.ackedThrough = publish;
  };
  return { clock, authority, ack, lines, stop };
}

test('a root that grows old gets a successor, which signs only after every proxy has the new bundle', () => {
  const { clock, authority, ack, lines, stop } = setUp();
  const old = authority.roots[0]!.id;
  clock.advance(29 * 60_000);
  expect(authority.roots).toHaveLength(1);
  clock.advance(2 * 60_000);
  expect(authority.roots.map((root) => root.phase)).toEqual(['active', 'prepared']);
  clock.advance(22 * 60_000);
  expect(authority.roots.find((root) => root.phase === 'active')!.id).toBe(old);
  expect(lines.some((line) => line.includes('waits for proxies'))).toBe(true);
  ack();
  clock.advance(60_000);
  expect(authority.roots.find((root) => root.phase === 'active')!.id).not.toBe(old);
  stop();
  expect(clock.pending).toBe(0);
});
