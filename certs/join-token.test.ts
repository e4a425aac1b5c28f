import { expect, test } from '@jest/globals';
import { createJoinTokens } from './join-token.ts';
import type { JoinTokensOptions } from './join-token.ts';
import { ManualClock } from '../lib/clock.ts';

const ID = 'spiffe://mesh.test/ns/default/sa/web';

function make(options: Partial<JoinTokensOptions> = {}) {
  const clock = new ManualClock();
  return { clock, tokens: createJoinTokens({ clock, trustDomain: 'mesh.test', ...options }) };
}

test('a token gives what it was bound to, once', () => {
  const { tokens } = make();
  const { token, id } = tokens.issue(ID, { attributes: { workload: 'web-1' } });

  expect(tokens.redeem(token)).toEqual({ ok: true, id, binding: { spiffeId: ID, attributes: { workload: 'web-1' } } });
  expect(tokens.redeem(token)).toMatchObject({
    ok: false,
    reason: 'replayed',
    id,
    message: expect.stringContaining('2026-01-01T00:00:00.000Z'),
  });
});

test('C21 of a hundred that redeem one token at once exactly one wins', async () => {
  const { tokens } = make();
  const { token } = tokens.issue(ID);

  const answers = await Promise.all(Array.from({ length: 100 }, async () => Promise.resolve().then(() => tokens.redeem(token))));

  expect(answers.filter((answer) => answer.ok)).toHaveLength(1);
  expect(answers.filter((answer) => !answer.ok && answer.reason === 'replayed')).toHaveLength(99);
});

test('a token ends after ten minutes unless told otherwise', () => {
  const { tokens, clock } = make();
  const [usual, short] = [tokens.issue(ID), tokens.issue(ID, { ttlMs: 1000 })];

  clock.advance(999);
  expect(tokens.outstanding).toBe(2);
  clock.advance(1);
  expect(tokens.redeem(short.token)).toMatchObject({ ok: false, reason: 'expired' });
  clock.advance(598_999);
  expect(tokens.redeem(usual.token).ok).toBe(true);
});

test.each(['', 'mwj_', `mwj_${'A'.repeat(43)}`, 'x'.repeat(1_000_000), 'mwj_\0'])('a token that was never issued is unknown', (token) => {
  expect(make().tokens.redeem(token)).toMatchObject({ ok: false, reason: 'unknown' });
});

test('only the hash of a token is kept, and the state comes back through JSON', () => {
  const { tokens, clock } = make();
  const [used, open] = [tokens.issue(ID), tokens.issue(ID)];
  tokens.redeem(used.token);
  const text = JSON.stringify(tokens.exportState());

  expect(text).not.toContain(used.token.slice(4));
  expect(text).not.toContain(open.token.slice(4));
  const back = createJoinTokens({ clock, trustDomain: 'mesh.test', state: JSON.parse(text) });
  expect(back.redeem(used.token)).toMatchObject({ ok: false, reason: 'replayed' });
  expect(back.redeem(open.token).ok).toBe(true);
});

test('a spent token is written down before it is honoured; if that fails it is spent all the same', () => {
  let failing = false;
  const { tokens } = make({
    save: () => {
      if (failing) throw new Error('disk full');
    },
  });
  const { token } = tokens.issue(ID);

  failing = true;
  expect(() => tokens.redeem(token)).toThrow('disk full');
  failing = false;
  expect(tokens.redeem(token)).toMatchObject({ ok: false, reason: 'replayed' });
});

test('tokens that wait are bounded, and room comes back when they end or are withdrawn', () => {
  const { tokens, clock } = make({ outstandingMax: 2 });
  const first = tokens.issue(ID);
  tokens.issue(ID, { ttlMs: 1000 });

  expect(() => tokens.issue(ID)).toThrow(/at most 2 join tokens/);
  clock.advance(1000);
  const third = tokens.issue(ID);
  expect(() => tokens.issue(ID)).toThrow(/at most 2 join tokens/);
  expect(tokens.withdraw(first.id)).toBe(true);
  expect(tokens.withdraw(first.id)).toBe(false);
  expect(tokens.redeem(first.token)).toMatchObject({ ok: false, reason: 'unknown' });
  tokens.issue(ID);
  expect(tokens.redeem(third.token).ok).toBe(true);
});

test('records are bounded too, however many tokens come and go', () => {
  const { tokens, clock } = make({ outstandingMax: 10 });
  let largest = 0;
  for (let i = 0; i < 1000; i++) {
    tokens.redeem(tokens.issue(ID, { ttlMs: 1000 }).token);
    clock.advance(100);
    largest = Math.max(largest, tokens.exportState().length);
  }

  expect(largest).toBeLessThanOrEqual(40);
});

test('a token is for an identity of this mesh and for a time within reason', () => {
  const { tokens } = make();

  expect(() => tokens.issue('spiffe://other.test/web')).toThrow(/of mesh.test/);
  expect(() => tokens.issue(ID, { ttlMs: 0 })).toThrow(/lives for up to/);
  expect(() => tokens.issue(ID, { ttlMs: Number.NaN })).toThrow(/lives for up to/);
});

test.each([
  [{}, /should be a list/],
  [[null], /token 0: should be an object/],
  [[{ hash: 'x' }], /token 0: hash/],
  [[{ hash: 'a'.repeat(64), expiresMs: 'soon' }], /token 0: expiresMs/],
  [[{ hash: 'a'.repeat(64), expiresMs: 1, binding: {} }], /token 0: binding/],
  [[{ hash: 'a'.repeat(64), expiresMs: 1, binding: { spiffeId: 'x', attributes: {} } }], /not a SPIFFE id/],
])('a stored state that is not whole is refused with the place', (state, message) => {
  expect(() => make({ state })).toThrow(message);
});
