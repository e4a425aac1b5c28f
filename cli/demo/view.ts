/** The demo's live picture in a terminal: redrawn in place, plain lines where the output is no terminal. */
import { styleText } from 'node:util';
import type { Story } from './story.ts';
import { percentileMs, splitOf } from './load.ts';

export const KEYS = {
  c: 'canary 0 → 10 → 50 → 100 %',
  b: 'break one ratings instance',
  s: 'slow one ratings instance',
  r: 'rotate all certificates',
  q: 'quit',
} as const;
export type Key = keyof typeof KEYS;

/** The last seconds that numbers in the picture are about. */
const WINDOW_MS = 10_000;

/** The picture as lines. Pure: the same story gives the same picture. */
export function draw(story: Story, nowMs: number): string[] {
  const recent = story.outcomes.filter((outcome) => outcome.atMs > nowMs - WINDOW_MS);
  const failed = recent.filter((outcome) => !outcome.ok).length;
  const split = splitOf(recent);
  const served = split.v1 + split.v2;
  const share = (count: number): string => (served === 0 ? '–' : `${Math.round((100 * count) / served)} %`);
  const seconds = Math.max(1, Math.min(WINDOW_MS, nowMs - story.startedMs) / 1000);
  const success = recent.length === 0 ? '–' : `${(100 * (1 - failed / recent.length)).toFixed(failed === 0 ? 0 : 1)} %`;
  const health = failed === 0 ? styleText('green', `✔ ${success}`) : styleText('red', `✖ ${success}`);
  return [
    '',
    `  load ──▶ ${styleText('bold', 'web')} ──▶ ${styleText('bold', 'reviews')} ──▶ ${styleText('bold', 'ratings')}      ${styleText('dim', `mTLS on ${story.edges.length} edges: ${story.edges.join(', ')}`)}`,
    '',
    `  ${(recent.length / seconds).toFixed(1)} requests/s   ${health} answered   p50 ${percentileMs(recent, 0.5)} ms   p99 ${percentileMs(recent, 0.99)} ms   ${story.failed} of ${story.outcomes.length} failed in all`,
    `  reviews   v1 ${share(split.v1)}   v2 ${share(split.v2)}   ${styleText('dim', `(weights ${story.weights.v1} : ${story.weights.v2})`)}`,
    `  ratings   ${story.ejectedNow.length === 0 ? styleText('green', '✔ both instances serve') : styleText('yellow', `⚠ ejected: ${story.ejectedNow.join(', ')}`)}${story.faults.length === 0 ? '' : `   ${styleText('dim', story.faults.join(', '))}`}`,
    `  certificates rotated ${story.rotations} ${story.rotations === 1 ? 'time' : 'times'}`,
    '',
    ...story.events.slice(-6).map((event) => styleText('dim', `  ${event}`)),
    '',
    `  ${Object.entries(KEYS)
      .map(([key, what]) => `${styleText('bold', key)} ${what}`)
      .join('   ')}`,
  ];
}

/** Redraws in place until stopped; calls back for each known key. Ctrl-C counts as `q`. */
export function startView(story: Story, now: () => number, every: (fn: () => void) => () => void, onKey: (key: Key) => void): () => void {
  let drawn = 0;
  const paint = (): void => {
    const lines = draw(story, now());
    process.stdout.write(`${drawn > 0 ? `\u001b[${drawn}A` : ''}${lines.map((line) => `\u001b[2K${line}\n`).join('')}\u001b[0J`);
    drawn = lines.length;
  };
  const onData = (data: Buffer): void => {
    const key = data.toString()[0] ?? '';
    if (key === '\u0003') onKey('q');
    else if (Object.hasOwn(KEYS, key)) onKey(key as Key);
  };
  const stopTimer = every(paint);
  paint();
  if (process.stdin.isTTY) {
    process.stdin.setRawMode(true);
    process.stdin.resume();
    process.stdin.on('data', onData);
  }
  return () => {
    stopTimer();
    paint();
    if (process.stdin.isTTY) {
      process.stdin.off('data', onData);
      process.stdin.setRawMode(false);
      process.stdin.pause();
    }
  };
}
