/** The nearest right word to a mistyped one, for "did you mean". */

/** Longer words are compared by their first characters only: nobody means a word of that length. */
const WORD_LENGTH_MAX = 64;

/** The word of `words` that is nearest to `word`, or undefined when none is near (a third of its letters, and at most three, may differ). */
export function nearest(word: string, words: Iterable<string>): string | undefined {
  const asked = word.slice(0, WORD_LENGTH_MAX).toLowerCase();
  const distanceMax = Math.min(3, Math.max(1, Math.floor(asked.length / 3)));
  let best: string | undefined;
  let bestDistance = distanceMax + 1;
  for (const candidate of words) {
    if (Math.abs(candidate.length - asked.length) > distanceMax) continue;
    const distance = editDistance(asked, candidate.slice(0, WORD_LENGTH_MAX).toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** `; did you mean "weight"?`, or nothing when no word is near. */
export function didYouMean(word: string, words: Iterable<string>): string {
  const found = nearest(word, words);
  return found === undefined || found === word ? '' : `; did you mean ${JSON.stringify(found)}?`;
}

/** How many insertions, deletions, replacements and swaps of neighbours turn `from` into `to` (optimal string alignment). */
export function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const row = [i];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1] === to[j - 1];
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      if (swapped) cost = Math.min(cost, beforeLast[j - 2]! + 1);
      row.push(cost);
    }
    beforeLast = last;
    last = row;
  }
  return last[to.length]!;
}
