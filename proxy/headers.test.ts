import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Headers } from './headers.ts';

test('lines and fields are two forms of one list, whatever is done to it', () => {
  const name = fc.constantFrom('X-One', 'x-one', 'X-Two', 'x-envoy-a', 'a_b', 'Accept', 'z');
  const value = fc.constantFrom('', '1', 'two words', 'x:y');
  const step = fc.oneof(
    fc.tuple(fc.constant('append'), name, value),
    fc.tuple(fc.constant('set'), name, value),
    fc.tuple(fc.constant('remove'), name, value),
    fc.tuple(fc.constant('removeIf'), name, value),
    fc.tuple(fc.constant('look'), name, value),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), fc.array(fc.tuple(name, value), { maxLength: 5 }), (steps, start) => {
      const read = new Headers();
      for (const [key, text] of start) read.append(key, text);
      // As a codec makes it: lines alone.
      const headers = read.clone();
      let model = start.map(([key, text]) => [key, text] as [string, string]);
      for (const [what, key, text] of steps) {
        const lower = key.toLowerCase();
        const first = model.findIndex(([known]) => known.toLowerCase() === lower);
        if (what === 'append') {
          headers.append(key, text);
          model.push([key, text]);
        } else if (what === 'set') {
          headers.set(key, text);
          if (first === -1) model.push([key, text]);
          else {
            model[first]![1] = text;
            model = model.filter(([known], i) => i <= first || known.toLowerCase() !== lower);
          }
        } else if (what === 'remove') {
          headers.remove(lower);
          model = model.filter(([known]) => known.toLowerCase() !== lower);
        } else if (what === 'removeIf') {
          headers.removeIf((known) => known === lower || known.includes('_'));
          model = model.filter(([known]) => known.toLowerCase() !== lower && !known.includes('_'));
        } else expect(headers.get(lower)).toBe(first === -1 ? undefined : model[first]![1]);
      }
      const seen: [string, string][] = [];
      headers.forEach((key, text) => seen.push([key, text]));
      expect(seen).toEqual(model);
      expect(headers.lines).toBe(model.map(([key, text]) => `${key}: ${text}\r\n`).join(''));
      expect(headers.size).toBe(model.length);
      if (model.some(([key]) => key.toLowerCase().startsWith('x-envoy-'))) expect(headers.mayHaveEnvoy).toBe(true);
      if (model.some(([key]) => key.includes('_'))) expect(headers.mayHaveUnderscore).toBe(true);
    }),
    { numRuns: 500 },
  );
});

test('a field that would break out of its line is refused', () => {
  const headers = new Headers();

  expect(() => headers.append('x', 'a\r\nb: c')).toThrow(/cannot be a field/);
  expect(() => headers.set('x y', 'a')).toThrow(/cannot be a field/);
  expect(() => headers.set('x', '\u010a')).toThrow(/cannot be a field/);
  expect(headers.size).toBe(0);
});
