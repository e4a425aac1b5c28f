import { expect, test } from '@jest/globals';
import type { DeltaRequest } from '../session/messages.ts';
import { testNode } from '../session/testing.ts';
import { ENDPOINT_TYPE } from '../session/type-urls.ts';
import { decodeDeltaRequest, encodeDeltaRequest } from './discovery.ts';
import { splitLists } from './request-lists.ts';

const names = (count: number, prefix = 'outbound'): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}|80||service-${index}`);

function request(subscribe: readonly string[], fields: Partial<DeltaRequest> = {}): DeltaRequest {
  const initialVersions = new Map(subscribe.map((name) => [name, `version of ${name}`]));
  const error = { code: 3, message: 'no' };
  return { mode: 'delta', typeUrl: ENDPOINT_TYPE, subscribe, unsubscribe: ['gone'], initialVersions, responseNonce: '7', error, ...fields };
}

test('long lists are the same objects for all requests that have the same, the rest of each request is its own', () => {
  const [one, two] = ['one', 'two'].map((id) => decodeDeltaRequest(encodeDeltaRequest(request(names(300), { node: testNode({ id }) }))));
  expect(one!.subscribe).toEqual(names(300));
  expect(one!.unsubscribe).toEqual(['gone']);
  expect([...one!.initialVersions]).toEqual(names(300).map((name) => [name, `version of ${name}`]));
  expect(two!.subscribe).toBe(one!.subscribe);
  expect(two!.initialVersions).toBe(one!.initialVersions);
  expect([one!.node?.id, two!.node?.id]).toEqual(['one', 'two']);
  expect([one!.responseNonce, one!.error?.message, one!.typeUrl]).toEqual(['7', 'no', ENDPOINT_TYPE]);
});

test('lists that differ are kept apart', () => {
  const [one, two] = ['a', 'b'].map((prefix) => decodeDeltaRequest(encodeDeltaRequest(request(names(300, prefix)))));
  expect(one!.subscribe[0]).toBe('a|80||service-0');
  expect(two!.subscribe[0]).toBe('b|80||service-0');
});

test('short requests, and lists with other fields between them, are decoded as they are', () => {
  expect(splitLists(encodeDeltaRequest(request(names(3))), 1_000)).toBeUndefined();
  // Two messages one after the other are one message, with the names of both.
  const twice = Buffer.concat([encodeDeltaRequest(request(names(300, 'a'))), encodeDeltaRequest(request(names(300, 'b')))]);
  expect(splitLists(twice, 10_000)).toBeUndefined();
  expect(decodeDeltaRequest(twice).subscribe).toEqual([...names(300, 'a'), ...names(300, 'b')]);
});

test('lists that go on where remembered ones end are not taken for those', () => {
  const fields = { unsubscribe: [], initialVersions: new Map() };
  const short = decodeDeltaRequest(encodeDeltaRequest(request(names(300), fields)));
  const long = decodeDeltaRequest(encodeDeltaRequest(request([...names(300), 'one more'], fields)));
  const shorter = decodeDeltaRequest(encodeDeltaRequest(request(names(299), fields)));
  expect([short, long, shorter].map(({ subscribe }) => subscribe.length)).toEqual([300, 301, 299]);
  expect(long.subscribe.at(-1)).toBe('one more');
});

test('a request may have so many elements, whether it is remembered or not', () => {
  const bytes = encodeDeltaRequest(request(names(301)));
  // A name is one element, an entry of the versions is one: 301 of each, and the name to give up.
  expect(() => splitLists(bytes, 602)).toThrow('may have at most 602 fields and items');
  expect(splitLists(bytes, 603)?.lists.elements).toBe(603);
  expect(splitLists(bytes, 603)?.lists).toBe(splitLists(bytes, 603)?.lists);
});

test('bytes that are no request are refused', () => {
  const cut = encodeDeltaRequest(request(names(300))).subarray(0, 9_000);
  expect(() => decodeDeltaRequest(cut)).toThrow();
});
