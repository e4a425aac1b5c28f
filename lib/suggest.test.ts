import { expect, test } from '@jest/globals';
import { didYouMean, editDistance, nearest } from './suggest.ts';

test('a swap of neighbours counts as one mistake', () => {
  expect(editDistance('weigth', 'weight')).toBe(1);
  expect(editDistance('', 'abc')).toBe(3);
  expect(editDistance('kitten', 'sitting')).toBe(3);
});

test('the nearest word wins, whatever its case', () => {
  expect(nearest('weigth', ['name', 'weight', 'height'])).toBe('weight');
  expect(nearest('httproute', ['GRPCRoute', 'HTTPRoute'])).toBe('HTTPRoute');
});

test('a word that is far from all gets no suggestion', () => {
  expect(nearest('banana', ['name', 'weight'])).toBeUndefined();
  expect(didYouMean('banana', ['name'])).toBe('');
});

test('a suggestion reads as a question', () => {
  expect(didYouMean('prot', ['port'])).toBe('; did you mean "port"?');
});
