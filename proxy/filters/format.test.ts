import { expect, test } from '@jest/globals';
import { fakeConnection, fakeInfo, fakeRequest } from '../upstream/fakes.ts';
import { localResponse } from '../http1/error-response.ts';
import { compileJsonFormat, compileTextFormat, DEFAULT_FORMAT, DEFAULT_JSON_FORMAT } from './format.ts';
import type { Exchange } from './format.ts';

function exchange(change: Partial<Exchange> = {}): Exchange {
  const request = fakeRequest({
    path: '/a?b=1',
    authority: 'shop.test',
    headers: { 'user-agent': 'curl/8', 'x-request-id': 'id-1', accept: 'a' },
    info: fakeInfo({ responseFlags: 'UF,URX', responseDetails: 'via_upstream', clusterName: 'reviews', requestBytes: 3, responseBytes: 9 }),
  });
  return {
    request,
    response: localResponse(request, 503, 'nobody'),
    startWallMs: Date.UTC(2026, 0, 2, 3, 4, 5, 6),
    durationMs: 12.4,
    ...change,
  };
}

test('the default line is the one that every runbook greps', () => {
  expect(compileTextFormat(DEFAULT_FORMAT, 'log')(exchange())).toBe(
    '[2026-01-02T03:04:05.006Z] "GET /a?b=1 HTTP/1.1" 503 UF,URX 3 9 12 - "-" "curl/8" "id-1" "shop.test" "-"\n',
  );
});

test('a client that went away first is status 0', () => {
  expect(compileTextFormat('%RESPONSE_CODE% %RESP(X-A)%', 'log')(exchange({ response: undefined }))).toBe('0 -');
});

test.each([
  ['%REQ(X-MISSING?:METHOD)%', 'GET'],
  ['%REQ(USER-AGENT):4%', 'curl'],
  ['100%% sure', '100% sure'],
  ['%START_TIME(%Y/%m/%d %H:%M:%S.%3f)%', '2026/01/02 03:04:05.006'],
  ['%DOWNSTREAM_REMOTE_ADDRESS%', `${fakeConnection.remoteAddress}:${fakeConnection.remotePort}`],
  ['%UPSTREAM_CLUSTER%|%ROUTE_NAME%', 'reviews|-'],
])('%s becomes %s', (format, text) => {
  expect(compileTextFormat(format, 'log')(exchange())).toBe(text);
});

test('JSON keeps numbers as numbers, and what is absent as null', () => {
  const line = compileJsonFormat(
    { ...DEFAULT_JSON_FORMAT, nested: { both: '%PROTOCOL% %RESPONSE_CODE%', list: ['%DURATION%'] } },
    'log',
  )(exchange());

  expect(line).toMatchObject({
    response_code: 503,
    bytes_sent: 9,
    upstream_host: null,
    method: 'GET',
    nested: { both: 'HTTP/1.1 503', list: [12] },
  });
});

test.each([
  ['%NO_SUCH_THING%', /log: unknown operator %NO_SUCH_THING%; there are .*BYTES_RECEIVED/],
  ['%REQ%', /%REQ% needs an argument in parentheses/],
  ['50% off', /an operator looks like %NAME%/],
])('%s is refused', (format, message) => {
  expect(() => compileTextFormat(format, 'log')).toThrow(message);
});
