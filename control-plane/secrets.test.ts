import { expect, test } from '@jest/globals';
import { createAuthority } from '../certs/authority.ts';
import { renewalDelayMs } from '../certs/rotation.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import type { Secret } from '../xds/snapshot.ts';
import { SECRET_TYPE } from '../xds/session/type-urls.ts';
import { createMetrics } from './metrics.ts';
import { createKeeper } from './secrets.ts';
import type { HeldCertificate, SecretKeeper } from './secrets.ts';

const IDENTITY = 'spiffe://cluster.local/ns/default/sa/reviews';

function setUp(options: { held?: HeldCertificate; identity?: string | undefined } = {}) {
  const clock = new ManualClock();
  const authority = createAuthority({ trustDomain: 'cluster.local', clock });
  const renewed: string[] = [];
  const encoded: Secret[] = [];
  const idle: true[] = [];
  const keeper: SecretKeeper = createKeeper({
    clock,
    log: silentLog,
    metrics: createMetrics(),
    authority,
    certificateTtlMs: () => 60_000,
    encodeSecret: (secret) => {
      encoded.push(secret);
      return { name: secret.name, version: `v${encoded.length}`, typeUrl: SECRET_TYPE, bytes: Uint8Array.of(encoded.length) };
    },
    // As the publisher does: it asks for what is to be pushed.
    renewed: (id) => {
      renewed.push(id);
      keeper.secret();
    },
    proxyId: 'reviews.default',
    identity: 'identity' in options ? options.identity : IDENTITY,
    held: options.held,
    idle: () => idle.push(true),
    delayMs: (held) => renewalDelayMs(held, clock.wallMs(), () => 0.5),
  });
  return { clock, authority, keeper, renewed, encoded, idle };
}

test('a certificate is issued once, and again at half of its life as long as somebody uses it', () => {
  const { clock, keeper, renewed, idle } = setUp();
  const release = keeper.use(() => true);
  const first = keeper.secret()!;
  expect(keeper.secret()).toBe(first);
  // 10 s of its 70 s of validity are before now.
  clock.advance(24_900);
  expect(renewed).toEqual([]);
  clock.advance(200);
  expect(renewed).toEqual(['reviews.default']);
  expect(keeper.secret()!.version).not.toBe(first.version);
  clock.advance(120_000);
  expect(renewed.length).toBeGreaterThan(3);
  release();
  const count = renewed.length;
  clock.advance(300_000);
  expect(renewed).toHaveLength(count);
  expect(keeper.view()).toBeUndefined();
  expect(idle).toHaveLength(1);
  keeper.close();
  expect(clock.pending).toBe(0);
});

test('a proxy that comes back with a certificate from before gets no other one until that is due', () => {
  const clock = new ManualClock();
  const held = { hash: 'ab'.repeat(32), serial: '1', notBeforeMs: clock.wallMs() - 10_000, notAfterMs: clock.wallMs() + 60_000 };
  const { keeper, encoded, renewed, clock: running } = setUp({ held });
  keeper.use(() => true);
  expect(keeper.secret()!.version).toBe(`cert-${'ab'.repeat(12)}`);
  expect(encoded).toEqual([]);
  expect(keeper.view()).toEqual(held);
  running.advance(25_100);
  expect(renewed).toEqual(['reviews.default']);
  expect(encoded).toHaveLength(1);
  keeper.close();
});

test('who asks for the content of a certificate from before gets one new certificate, the same bytes each time', () => {
  const held = { hash: 'cd'.repeat(32), serial: '1', notBeforeMs: Date.UTC(2026, 0, 1), notAfterMs: Date.UTC(2026, 0, 2) };
  const { keeper, encoded } = setUp({ held });
  const secret = keeper.secret()!;
  expect(secret.bytes).toBe(secret.bytes);
  expect(encoded).toHaveLength(1);
  expect(keeper.secret()!.version).toBe(secret.version);
  expect(keeper.view()!.hash).not.toBe(held.hash);
  keeper.close();
});

test('a certificate of a tainted root is replaced', () => {
  const { authority, keeper } = setUp();
  keeper.use(() => true);
  const first = keeper.secret()!;
  const old = authority.roots[0]!.id;
  authority.prepare();
  authority.activate({ bundleVersion: authority.bundle.current.version, pending: [] });
  expect(keeper.secret()).toBe(first);
  authority.taint(old);
  expect(keeper.secret()!.version).not.toBe(first.version);
  keeper.close();
});

test('a caller without identity has no certificate', () => {
  const { keeper, encoded } = setUp({ identity: undefined });
  expect(keeper.secret()).toBeUndefined();
  expect(keeper.renew()).toBe(false);
  expect(encoded).toEqual([]);
});

test('a renewal that fails leaves the certificate in place and is tried again', () => {
  const { clock, authority, keeper, renewed } = setUp();
  keeper.use(() => true);
  const first = keeper.secret()!;
  const issue = authority.issue.bind(authority);
  authority.issue = () => {
    throw new Error('no room');
  };
  clock.advance(25_100);
  expect(renewed).toHaveLength(1);
  expect(keeper.secret()).toBe(first);
  authority.issue = issue;
  clock.advance(10_000);
  expect(keeper.secret()!.version).not.toBe(first.version);
  keeper.close();
});

test('who has left gets no new certificate, and keeps the old one until it ends or the way is open again', () => {
  const { clock, keeper, renewed } = setUp();
  let known = true;
  keeper.use(() => known);
  const first = keeper.secret()!;
  known = false;
  expect(keeper.renew()).toBe(false);
  clock.advance(40_000);
  expect(renewed).toEqual([]);
  expect(keeper.secret()).toBe(first);
  known = true;
  clock.advance(10_000);
  expect(renewed).toHaveLength(1);
  expect(keeper.secret()!.version).not.toBe(first.version);
  keeper.close();
});
