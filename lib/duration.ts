/** Durations as people write them (Gateway API: `1h30m`, `10s`, `500ms`) and as protobuf JSON does (`0.25s`), in and out of milliseconds. */

const UNITS_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };

/** Parses a Gateway API duration (GEP-2257: up to four groups, largest unit first, at most five digits each). Throws with rule and value. */
export function parseDurationMs(text: string): number {
  if (!/^(?:\d{1,5}(?:h|ms|m|s)){1,4}$/.test(text)) {
    throw new Error(`a duration is one to four groups of digits and a unit (h, m, s, ms) like "1m30s", received ${JSON.stringify(text)}`);
  }
  let totalMs = 0;
  for (const [, digits, unit] of text.matchAll(/(\d+)(h|ms|m|s)/g)) totalMs += Number(digits) * UNITS_MS[unit!]!;
  return totalMs;
}

/** Writes milliseconds as a Gateway API duration, largest units first: 90000 is `1m30s`, 0 is `0s`. */
export function formatDuration(ms: number): string {
  let leftMs = Math.round(ms);
  if (leftMs === 0) return '0s';
  let text = '';
  for (const [unit, unitMs] of Object.entries(UNITS_MS)) {
    const count = Math.floor(leftMs / unitMs);
    if (count > 0) text += `${count}${unit}`;
    leftMs -= count * unitMs;
  }
  return text;
}
