import { test, expect } from '@jest/globals';
import { parseProxyOptions, UsageError } from './options.ts';

test('the flags that an Istio agent passes are all understood', () => {
  const options = parseProxyOptions(
    (
      '-c /etc/istio/envoy.yaml --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 --file-flush-interval-msec 1000 ' +
      '--disable-hot-restart --allow-unknown-static-fields -l warning --component-log-level misc:error --skip-deprecated-logs --concurrency 1'
    ).split(' '),
  );

  expect(options).toMatchObject({
    mode: 'serve',
    configPath: '/etc/istio/envoy.yaml',
    drainTimeMs: 45_000,
    drainStrategy: 'immediate',
    logLevel: 'warning',
    allowUnknownStaticFields: true,
    warnings: [],
  });
});

test('a lazy proxy is one by its flags, and its bounds are numbers above 0', () => {
  expect(parseProxyOptions(['-c', 'x'])).toMatchObject({ lazy: false, lazyIdleMs: 300_000, lazyHostsMax: 1_000 });
  expect(parseProxyOptions(['-c', 'x', '--lazy', '--lazy-idle-s', '7', '--lazy-hosts=50'])).toMatchObject({
    lazy: true,
    lazyIdleMs: 7_000,
    lazyHostsMax: 50,
  });
  expect(() => parseProxyOptions(['-c', 'x', '--lazy-hosts', '0'])).toThrow('--lazy-hosts takes a whole number above 0, received 0');
});

test.each([
  [['-c'], '-c needs a value'],
  [['-c', 'x', '--drain-time-s', 'soon'], '--drain-time-s takes a whole number, received "soon"'],
  [['-c', 'x', '-l', 'loud'], '-l takes trace, debug, info, warn, warning, error, critical, off, received "loud"'],
  [['bootstrap.yaml'], 'unexpected argument "bootstrap.yaml"'],
  [[], 'a configuration is needed'],
  [['--config-yaml', ' '], 'a configuration is needed'],
  [['-c', 'x', '--drain-times-s', '5'], 'unknown flag --drain-times-s; did you mean "--drain-time-s"?'],
  [['-c', 'x', '--flux-level=9'], 'unknown flag --flux-level'],
])('%j is refused with the rule and the value', (argv, message) => {
  expect(() => parseProxyOptions(argv)).toThrow(UsageError);
  expect(() => parseProxyOptions(argv)).toThrow(message);
});

test.each(['--ignore-unknown-dynamic-fields', '--cpuset-threads', '--log-stacktrace-single-entry', '--log-format-escaped'])(
  '%s has no value, so what follows it is read',
  (flag) => {
    expect(parseProxyOptions([flag, '-c', 'envoy.yaml'])).toMatchObject({ configPath: 'envoy.yaml', warnings: [] });
  },
);
