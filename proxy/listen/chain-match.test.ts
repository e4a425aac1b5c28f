import { expect, test } from '@jest/globals';
import { compileChainMatch, needsInspection } from './chain-match.ts';
import { inRange, isInternal, parseIp, parseIpRange } from './ip.ts';
import type { ConnectionFacts } from './chain-match.ts';
import type { FilterChainMatch } from '../../xds/snapshot.ts';

const facts = (change: Partial<ConnectionFacts> = {}): ConnectionFacts => ({
  destinationAddress: '10.0.0.1',
  destinationPort: 80,
  sourceAddress: '10.0.0.9',
  sourcePort: 4000,
  transportProtocol: 'raw_buffer',
  serverName: '',
  applicationProtocols: [],
  ...change,
});

const choose = (matches: FilterChainMatch[], change: Partial<ConnectionFacts>): number =>
  compileChainMatch(matches, 'listener "l"')(facts(change));

test.each<[string, FilterChainMatch[], Partial<ConnectionFacts>, number]>([
  ['a port beats no port', [{}, { destinationPort: 80 }], {}, 1],
  ['a port that does not fit is out', [{ destinationPort: 81 }], {}, -1],
  [
    'the longer destination range wins',
    [{ prefixRanges: [{ address: '10.0.0.0', prefixLength: 8 }] }, { prefixRanges: [{ address: '10.0.0.0', prefixLength: 24 }] }],
    {},
    1,
  ],
  [
    'an exact name beats a wildcard',
    [{ serverNames: ['*.shop.test'] }, { serverNames: ['a.shop.test'] }],
    { serverName: 'a.shop.test' },
    1,
  ],
  [
    'a longer wildcard beats a shorter one',
    [{ serverNames: ['*.test'] }, { serverNames: ['*.shop.test'] }],
    { serverName: 'x.y.shop.test' },
    1,
  ],
  ['a wildcard does not take its own suffix', [{ serverNames: ['*.shop.test'] }], { serverName: 'shop.test' }, -1],
  ['TLS goes to the TLS chain', [{ transportProtocol: 'raw_buffer' }, { transportProtocol: 'tls' }], { transportProtocol: 'tls' }, 1],
  [
    'the protocol that the client names first decides',
    [{ applicationProtocols: ['http/1.1'] }, { applicationProtocols: ['h2'] }],
    { applicationProtocols: ['h2', 'http/1.1'] },
    1,
  ],
  [
    'the source type tells neighbours from strangers',
    [{ sourceType: 'EXTERNAL' }, { sourceType: 'SAME_IP_OR_LOOPBACK' }],
    { sourceAddress: '127.0.0.1' },
    1,
  ],
  ['the source port comes last', [{}, { sourcePorts: [4000] }], {}, 1],
  [
    'IPv4 inside IPv6 is IPv4',
    [{ sourcePrefixRanges: [{ address: '10.0.0.0', prefixLength: 8 }] }],
    { sourceAddress: '::ffff:10.1.2.3' },
    0,
  ],
])('%s', (_name, matches, change, index) => {
  expect(choose(matches, change)).toBe(index);
});

test('there is no way back: a chain that lost on the port is not considered when the rest does not fit', () => {
  const matches: FilterChainMatch[] = [{ destinationPort: 80, serverNames: ['other.test'] }, { serverNames: ['a.test'] }];

  expect(choose(matches, { serverName: 'a.test' })).toBe(-1);
  expect(choose(matches, { serverName: 'a.test', destinationPort: 81 })).toBe(1);
});

test.each<[FilterChainMatch[], RegExp]>([
  [[{ destinationPort: 80 }, { destinationPort: 80 }], /filter_chains\[1\]: has the same filter_chain_match as filter_chains\[0\]/],
  [
    [{ serverNames: ['a*.test'] }],
    /server_names\[0\]: takes a name or a whole-label wildcard such as "\*\.example\.com", received "a\*\.test"/,
  ],
  [
    [{ prefixRanges: [{ address: '10.0.0.0', prefixLength: 40 }] }],
    /prefix_ranges\[0\]: must be an address and a prefix length, received 10\.0\.0\.0\/40/,
  ],
])('%j is refused with its place', (matches, message) => {
  expect(() => compileChainMatch(matches, 'listener "l"')).toThrow(message);
});

test('only server names, transport and application protocols need a look at the first bytes', () => {
  expect(needsInspection([{ destinationPort: 80, sourcePorts: [1] }])).toBe(false);
  expect(needsInspection([{}, { serverNames: ['a'] }])).toBe(true);
  expect(needsInspection([{ transportProtocol: 'tls' }])).toBe(true);
});

test('addresses are read with zones, mapped forms and compressed groups, and nothing else is', () => {
  expect(parseIp('fe80::1%eth0')).toEqual(parseIp('fe80::1'));
  expect(parseIp('::ffff:1.2.3.4')).toEqual({ bits: 32, value: 0x01020304n });
  expect(parseIp('2001:db8::5')?.value).toBe(0x20010db8000000000000000000000005n);
  expect(parseIp('localhost')).toBeUndefined();
  expect(parseIpRange('::ffff:10.0.0.0', 104)).toEqual({ bits: 32, base: 0x0a000000n, prefixLength: 8 });
  expect(inRange(parseIp('2001:db8::5')!, parseIpRange('2001:db8::', 32)!)).toBe(true);
  expect(['10.1.1.1', '172.32.0.1', 'fd00::1', '8.8.8.8'].map((address) => isInternal(parseIp(address)!))).toEqual([
    true,
    false,
    true,
    false,
  ]);
});
