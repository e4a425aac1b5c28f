import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { ProxyError } from '../errors.ts';
import { fakeEndpoint, fakeInfo, fakeRequest, fakeResponse, layered } from '../upstream/fakes.ts';
import { ConfigReader } from './config.ts';
import { compileLocalReply } from './local-reply.ts';
import { answers } from './local-response.ts';
import { textOf } from './testing.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import type { JsonObject } from '../../xds/snapshot.ts';

const clock = new ManualClock();

function reply(config: JsonObject, request: ProxyRequest, error = new ProxyError('routeNotFound')): Promise<ProxyResponse> {
  const localReply = compileLocalReply(new ConfigReader('local_reply_config', config), { clock, random: () => 0 });
  return layered(answers({ localReply }), () => Promise.reject(error))(request);
}

test('answers of the proxy take the status, the body and the headers that a mapper gives them', async () => {
  const filter = { statusCodeFilter: { comparison: { op: 'EQ', value: { defaultValue: 404 } } } };
  const config = {
    mappers: [
      { filter, statusCode: 410, body: { inlineString: 'gone' }, headersToAdd: [{ header: { key: 'x-why', value: '%RESPONSE_FLAGS%' } }] },
    ],
  };

  const mapped = await reply(config, fakeRequest());
  const other = await reply(config, fakeRequest(), new ProxyError('noHealthyEndpoint'));

  expect([mapped.status, mapped.reason, textOf(mapped), mapped.headers.get('x-why')]).toEqual([410, '', 'gone', 'NR']);
  expect([other.status, textOf(other)]).toEqual([503, 'no healthy upstream']);
});

test('a JSON format writes the body with its values, and HEAD gets its length alone', async () => {
  const config = { bodyFormat: { jsonFormat: { status: '%RESPONSE_CODE%', message: '%LOCAL_REPLY_BODY%', path: '%REQ(:PATH)%' } } };

  const full = await reply(config, fakeRequest({ path: '/a' }));
  const head = await reply(config, fakeRequest({ path: '/a', method: 'HEAD' }));

  expect(JSON.parse(textOf(full))).toEqual({ status: 404, message: expect.stringContaining('No route'), path: '/a' });
  expect(full.headers.get('content-type')).toBe('application/json');
  expect(head.body).toBeUndefined();
  expect(head.contentLength).toBeGreaterThan(0);
});

test('answers of endpoints are left alone but for the time that they took', async () => {
  const localReply = compileLocalReply(new ConfigReader('c', { bodyFormat: { textFormat: 'mine' } }), { clock, random: () => 0 });
  const request = fakeRequest({ info: fakeInfo({ endpoint: fakeEndpoint('10.0.0.1:80') }) });

  const response = await layered(answers({ tellTime: true, localReply }), () => {
    request.info.answeredMs = request.startMs + 12;
    return Promise.resolve(fakeResponse(500));
  })(request);

  expect([response.status, response.headers.get('x-envoy-upstream-service-time'), request.info.responseDetails]).toEqual([
    500,
    '12',
    'via_upstream',
  ]);
});

test.each<[JsonObject, RegExp]>([
  [{ bodyFormat: {} }, /c\.bodyFormat: must have text_format/],
  [{ mappers: [{ body: { filename: 'x' } }] }, /c\.mappers\[0\]\.body: must be an inline_string/],
  [{ mappers: [{ filter: { unknownFilter: {} } }] }, /an access log filter is status_code_filter/],
])('%j is refused', (config, message) => {
  expect(() => compileLocalReply(new ConfigReader('c', config), { clock, random: () => 0 })).toThrow(message);
});
