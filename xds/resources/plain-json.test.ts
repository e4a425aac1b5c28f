/** Which texts are read without the YAML reader, and that both readers agree on them. */
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseDocument } from 'yaml';
import { readPlainJson } from './plain-json.ts';

test('what is read is what JSON says, and what the YAML reader says', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 })), fc.nat(2), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent);
      const read = readPlainJson(text);
      if (text.includes('"<<"')) return;
      expect(read?.json).toEqual(JSON.parse(text));
      expect(parseDocument(text, { merge: true, version: '1.2' }).toJS()).toEqual(read?.json);
    }),
    { numRuns: 300 },
  );
});

test.each([
  ['a key twice', '{"a": 1, "b": {"c": 1, "c": 2}}'],
  ['a key twice, written differently', '{"a": 1, "\\u0061": 2}'],
  ['a merge key', '{"<<": {"a": 1}}'],
  ['no JSON', '{a: 1}'],
  ['JSON that is cut off', '{"a": 1'],
  ['no object', '[1, 2]'],
  ['nothing', ''],
])('%s is left to the other reader', (_what, text) => {
  expect(readPlainJson(text)).toBeUndefined();
});

test('the same key in different objects, and as a value, is no key twice', () => {
  expect(readPlainJson('{"a": {"a": "a"}, "b": ["a", {"a": "a:{\\"a"}]}')?.json).toEqual({ a: { a: 'a' }, b: ['a', { a: 'a:{"a' }] });
});
