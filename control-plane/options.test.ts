import { expect, test } from '@jest/globals';
import { DEFAULT_OPTIONS, parseControlPlaneArgs, parseListenAddress } from './options.ts';

test('no argument gives the documented defaults', () => {
  expect(parseControlPlaneArgs([])).toEqual(DEFAULT_OPTIONS);
});

test('every option is read', () => {
  const argv = [
    '-f',
    'a.yaml',
    '-f',
    'dir',
    '--xds',
    ':0',
    '--xds-tls',
    '0.0.0.0:1',
    '--api',
    '[::1]:2',
    '--metrics',
    'localhost:3',
    '--data-dir',
    'd',
    '-o',
    'json',
  ];
  expect(parseControlPlaneArgs(argv)).toMatchObject({
    files: ['a.yaml', 'dir'],
    xds: { host: '127.0.0.1', port: 0 },
    xdsTls: { host: '0.0.0.0', port: 1 },
    api: { host: '::1', port: 2 },
    metrics: { host: 'localhost', port: 3 },
    dataDir: 'd',
    output: 'json',
  });
  expect(parseControlPlaneArgs(['--help'])).toBe('help');
});

test.each([
  [['--xds', '0.0.0.0:15010'], /loopback addresses only/],
  [['--xds', '127.0.0.1'], /HOST:PORT/],
  [['--api', '127.0.0.1:70000'], /up to 65535/],
  [['--kubernetes'], /not in this version/],
  [['--output', 'xml'], /text, json/],
  [['--nonsense'], /nonsense/],
  [['extra'], /extra/],
])('%j is refused with the rule and the value', (argv, message) => {
  expect(() => parseControlPlaneArgs(argv)).toThrow(message);
});

test('an address without brackets around IPv6 is refused rather than guessed', () => {
  expect(() => parseListenAddress('--api', '::1:80')).toThrow(/HOST:PORT/);
});
