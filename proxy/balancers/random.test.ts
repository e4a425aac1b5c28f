import { expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import { fakeEndpoint, fakeRequest } from '../upstream/fakes.ts';
import { random } from './random.ts';

test('endpoints are drawn in proportion to their weights', () => {
  const picker = random.compile({}, 'lb')([fakeEndpoint('a:1', { weight: 1 }), fakeEndpoint('b:1', { weight: 4 })], seededRandom(3));

  let drawn = 0;
  for (let i = 0; i < 10_000; i++) if (picker(fakeRequest())!.key === 'b:1') drawn++;

  // Five standard deviations of 10,000 draws at 0.8.
  expect(Math.abs(drawn - 8000)).toBeLessThan(200);
});
