import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { OnDemand } from './hosts.ts';
import type { OnDemandOptions } from './hosts.ts';
import type { HostTable, Waiting } from './table.ts';
import { ProxyError } from '../errors.ts';
import type { VirtualHost } from '../../xds/snapshot.ts';

interface Scene {
  readonly clock: ManualClock;
  readonly hosts: OnDemand;
  readonly table: HostTable;
  /** Virtual hosts in force. */
  readonly inForce: Map<string, VirtualHost>;
  readonly dropped: string[];
  connected: boolean;
  reason: ProxyError | undefined;
  names(): string[];
  /** The control plane says: these virtual hosts (`name` or `name|alias`), with these domains, and not those. */
  says(upserts: Readonly<Record<string, readonly string[]>>, removals?: readonly string[]): void;
  /** Waits for a host and tells what came of it. */
  wait(host: string, request?: Waiting): Promise<string>;
}

function scene(options: Partial<OnDemandOptions> = {}): Scene {
  const clock = new ManualClock();
  const hosts = new OnDemand({ clock, registry: createRegistry(), ...options });
  const inForce = new Map<string, VirtualHost>();
  const dropped: string[] = [];
  const made: Scene = {
    clock,
    hosts,
    table: hosts.table('r'),
    inForce,
    dropped,
    connected: true,
    reason: undefined,
    names: () => [...hosts.names()].sort(),
    says: (upserts, removals = []) => {
      const list = Object.entries(upserts).map(([key, domains]) => {
        const [name = '', ...aliases] = key.split('|');
        return { name, aliases, value: { name, domains } as unknown as VirtualHost };
      });
      for (const name of removals) inForce.delete(name);
      for (const name of hosts.received(list, removals)) inForce.delete(name);
      for (const { name, value } of list) inForce.set(name, value);
      hosts.applied({ virtualHosts: inForce });
    },
    wait: (host, request = { abort: undefined }) => {
      const waiting = made.table.wait(host, request);
      return waiting === undefined
        ? Promise.resolve('not asked')
        : waiting.then(
            () => 'goes on',
            (error: ProxyError) => `${error.code} ${error.detail}`,
          );
    },
  };
  hosts.attach({
    changed: (names) => {
      dropped.push(...names);
      for (const name of names) inForce.delete(name);
    },
    reasonOf: () => made.reason,
    isConnected: () => made.connected,
  });
  return made;
}

test('all requests for a host share one subscription, and go on when its routes are in force', async () => {
  const { hosts, table, names, wait, says } = scene();

  const waiting = [wait('a:80'), wait('A:80'), wait('b')];
  expect(names()).toEqual(['r/a:80', 'r/b']);
  says({ 'r/a.default:80|r/a:80': ['a', 'a:80', 'a.default:80'] });

  expect(await Promise.all(waiting.slice(0, 2))).toEqual(['goes on', 'goes on']);
  expect(hosts.sizes).toEqual({ used: 1, asked: 1, unknown: 0 });
  // Every domain of the virtual host leads to it, without being asked for.
  expect(['a', 'a:80', 'a.default:80', 'c'].map((host) => table.find(host)?.virtualHost)).toEqual([
    'r/a.default:80',
    'r/a.default:80',
    'r/a.default:80',
    undefined,
  ]);
  expect(names()).toEqual(['r/a:80', 'r/b']);
});

test('a host that does not exist stays asked for, and is used when it comes to be', async () => {
  const { table, names, wait, says } = scene();

  const waiting = wait('ghost');
  says({}, ['r/ghost']);

  expect(await waiting).toBe('goes on');
  expect(table.find('ghost')?.exists).toBe(false);
  expect(names()).toEqual(['r/ghost']);
  says({ 'r/ghost.default|r/ghost': ['ghost', 'ghost.default'] });
  expect(table.find('ghost')).toMatchObject({ exists: true, virtualHost: 'r/ghost.default' });
});

test('a wait ends after its time with what is missing, and nothing stays asked for', async () => {
  const { clock, hosts, names, wait, says } = scene();
  const made = scene();
  const first = wait('a');
  clock.advance(3_000);
  const second = wait('a');
  clock.advance(2_000);

  expect(await first).toBe('hostNotDiscovered Host "a" was waited for 5000 ms.');
  expect(names()).toEqual(['r/a']);
  clock.advance(3_000);
  expect(await second).toBe('hostNotDiscovered Host "a" was waited for 5000 ms.');
  expect(names()).toEqual([]);
  expect(hosts.sizes).toEqual({ used: 0, asked: 0, unknown: 0 });
  says({ 'r/a': ['a'] });

  made.connected = false;
  const away = made.wait('b');
  made.clock.advance(5_000);
  expect(await away).toBe('hostNotDiscovered Host "b" was waited for 5000 ms. The control plane cannot be reached.');
});

test('a client that goes away waits no longer, and nothing is asked for on its behalf', async () => {
  const { names, wait, says } = scene();
  const request: Waiting = { abort: undefined };
  const [gone, other] = [wait('a', request), wait('b')];
  request.abort?.(new ProxyError('downstreamReset'));

  expect(await gone).toBe('downstreamReset ');
  expect(request.abort).toBeUndefined();
  expect(names()).toEqual(['r/b']);
  says({ 'r/b': ['b'] });
  expect(await other).toBe('goes on');
});

test('what had no request for the idle time is forgotten, with the unknown, and what is used stays', async () => {
  const { clock, table, names, dropped, wait, says } = scene({ idleMs: 10_000 });
  const waiting = [wait('a'), wait('b'), wait('ghost')];
  says({ 'r/a': ['a'], 'r/b': ['b'] }, ['r/ghost']);
  await Promise.all(waiting);

  for (let i = 0; i < 8; i++) {
    clock.advance(2_000);
    table.find('a')!.usedMs = clock.now();
  }

  expect(dropped).toEqual(['r/b']);
  expect(names()).toEqual(['r/a']);
  clock.advance(20_000);
  expect(dropped).toEqual(['r/b', 'r/a']);
  expect(names()).toEqual([]);
});

test('the table is bounded: the host that was unused for longest goes', async () => {
  const { clock, hosts, table, names, wait, says } = scene({ hostsMax: 2 });
  for (const host of ['a', 'b', 'c']) {
    const waiting = wait(host);
    says({ [`r/${host}`]: [host] });
    await waiting;
    clock.advance(10);
    if (host === 'b') table.find('a')!.usedMs = clock.now();
  }

  expect(names()).toEqual(['r/a', 'r/c']);
  expect(table.find('b')).toBeUndefined();
  expect(hosts.sizes.used).toBe(2);
});

test('who invents names fills no memory, drives out no host that is used, and keeps nobody busy', async () => {
  const { clock, hosts, table, wait, says } = scene({ limits: { unknown: 10, burst: 100, perSecond: 10, asked: 50 } });
  const waiting = wait('a');
  says({ 'r/a': ['a'] });
  await waiting;
  let asked = 0;
  for (let i = 0; i < 1_000; i++) {
    const host = `invented-${i}`;
    const answer = wait(host);
    if (table.find(host) !== undefined) {
      asked++;
      says({}, [`r/${host}`]);
    } else expect(await answer).toBe('hostOverflow ');
    clock.advance(1);
  }

  expect(asked).toBeLessThan(120);
  expect(hosts.sizes).toEqual({ used: 1, asked: 0, unknown: 10 });
  expect(hosts.names().size).toBe(11);
  expect(table.find('a')?.exists).toBe(true);
});

test('hosts and requests that wait are bounded', async () => {
  const { wait } = scene({ limits: { asked: 2, waiting: 3 } });
  void wait('a');
  void wait('b');

  expect(await wait('c')).toBe('hostOverflow ');
  void wait('a');
  expect(await wait('a')).toBe('hostOverflow ');
});

test('without a stream to ask on nobody waits', () => {
  const hosts = new OnDemand({ clock: new ManualClock(), registry: createRegistry() });

  expect(hosts.table('r').wait('a', { abort: undefined })).toBeUndefined();
  expect(hosts.names().size).toBe(0);
});

test('no name is asked for that could be a pattern, another table or no name at all', async () => {
  const { names, wait } = scene();

  for (const host of ['*', 'a/b', '', 'a b', 'x'.repeat(300)]) expect(await wait(host)).toBe('not asked');
  expect(names()).toEqual([]);
});

test('a changed parent: what the control plane speaks of again stays, the rest goes, and nothing goes while it is away', async () => {
  const made = scene();
  const { clock, hosts, names, dropped, wait, says } = made;
  const waiting = [wait('a'), wait('b')];
  says({ 'r/a': ['a'], 'r/b': ['b'] });
  await Promise.all(waiting);

  hosts.parentChanged('r');
  says({ 'r/a': ['a'] });
  made.connected = false;
  clock.advance(60_000);
  expect(dropped).toEqual([]);
  made.connected = true;
  clock.advance(5_000);

  expect(dropped).toEqual(['r/b']);
  expect(names()).toEqual(['r/a']);
});

test('a virtual host that is gone leaves its names unknown, and a name may pass to another', async () => {
  const { table, names, wait, says } = scene();
  const waiting = [wait('a'), wait('b')];
  says({ 'r/a.default|r/a': ['a', 'a.default'], 'r/b.default|r/b': ['b'] });
  await Promise.all(waiting);

  says({}, ['r/a.default', 'r/a']);
  expect([table.find('a')?.exists, table.find('a.default')]).toEqual([false, undefined]);
  says({ 'r/c|r/b': ['b', 'c'] }, ['r/b.default']);
  expect(table.find('b')?.virtualHost).toBe('r/c');
  expect(names()).toEqual(['r/a', 'r/b']);
});

test('routes that were rejected end the waiting with the reason', async () => {
  const { hosts, names, wait } = scene();
  const waiting = wait('a');
  hosts.refused(['r/a.default', 'r/a'], 'a weight is missing');

  expect(await waiting).toBe('hostNotDiscovered Its routes were rejected: a weight is missing');
  expect(names()).toEqual([]);
});

test('virtual hosts from disk are in use under a name that can be asked for', () => {
  const { hosts, table, names } = scene();
  hosts.adopt([
    ['r/a.default:80', { name: 'x', domains: ['a', 'a.default:80'] } as unknown as VirtualHost],
    ['r/inner', { name: 'y', domains: ['b', '*.b'] } as unknown as VirtualHost],
  ]);

  expect(names()).toEqual(['r/a.default:80', 'r/b']);
  expect(['a', 'b'].map((host) => table.find(host)?.virtualHost)).toEqual(['r/a.default:80', 'r/inner']);
});
