/** Weighted turns without chance: in every cycle each index comes exactly as often as its weight says, evenly spread (earliest deadline first). */

/** Answers the next index; -1 when no weight is above 0. */
export type Turns = () => number;

/**
 * Builds the order of turns. Index i is due at (k + 1) / weight for its k-th turn; the earliest is next. Whole weights give a cycle as long as
 * their sum. `skip` turns are left out at the start, so that many proxies with the same list do not all begin with the same endpoint.
 */
export function turns(weights: readonly number[], skip = 0): Turns {
  const members = weights.map((_, i) => i).filter((i) => weights[i]! > 0);
  if (members.length === 0) return () => -1;
  const first = weights[members[0]!];
  if (members.every((i) => weights[i] === first)) return inOrder(members, skip);
  const next = byDeadline(members, weights);
  for (let i = 0; i < skip; i++) next();
  return next;
}

function inOrder(members: readonly number[], skip: number): Turns {
  let at = skip % members.length;
  return () => {
    const index = members[at]!;
    at = at + 1 === members.length ? 0 : at + 1;
    return index;
  };
}

/** A binary heap in typed arrays: slot 0 is due next; ties go to the lower index. */
function byDeadline(members: readonly number[], weights: readonly number[]): Turns {
  const count = members.length;
  const heap = Int32Array.from(members.keys());
  const taken = new Float64Array(count);
  const due = Float64Array.from(members, (i) => 1 / weights[i]!);
  const before = (a: number, b: number): boolean => due[a]! < due[b]! || (due[a] === due[b] && a < b);
  const sink = (from: number): void => {
    let at = from;
    for (;;) {
      let least = at;
      const left = 2 * at + 1;
      if (left < count && before(heap[left]!, heap[least]!)) least = left;
      if (left + 1 < count && before(heap[left + 1]!, heap[least]!)) least = left + 1;
      if (least === at) return;
      const moved = heap[at]!;
      heap[at] = heap[least]!;
      heap[least] = moved;
      at = least;
    }
  };
  for (let at = (count >> 1) - 1; at >= 0; at--) sink(at);
  return () => {
    const member = heap[0]!;
    taken[member]!++;
    // Reckoned from the count and never added up, so that rounding errors cannot pile up over days.
    due[member] = (taken[member]! + 1) / weights[members[member]!]!;
    sink(0);
    return members[member]!;
  };
}
