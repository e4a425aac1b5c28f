import { expect, test } from '@jest/globals';
import { ERROR_TEXT_MAX, errorText, canonicalNode } from './messages.ts';
import { testNode } from './testing.ts';

test('rule 18: an error text is never empty and never beyond 32 KiB', () => {
  expect(errorText('')).not.toBe('');
  expect(errorText('short')).toBe('short');
  const long = errorText('x'.repeat(1_000_000));
  expect(long.length).toBeLessThanOrEqual(ERROR_TEXT_MAX);
  expect(long.endsWith('…(truncated)')).toBe(true);
});

test('rule 2: nodes are the same in whatever order their metadata came, and differ by any value', () => {
  const node = testNode({ metadata: { NAMESPACE: 'default', LABELS: { app: 'web', version: '1' } } });

  expect(canonicalNode(testNode({ metadata: { LABELS: { version: '1', app: 'web' }, NAMESPACE: 'default' } }))).toBe(canonicalNode(node));
  expect(canonicalNode(testNode({ metadata: { LABELS: { version: '2', app: 'web' }, NAMESPACE: 'default' } }))).not.toBe(
    canonicalNode(node),
  );
});
