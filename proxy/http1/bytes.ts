/** Latin1 in and out of buffers by the direct methods, which cost half of what `toString('latin1')` and `write(…, 'latin1')` do. */

/** Bodies up to this size travel as text with their head; longer ones are cheaper as buffers. */
export const TEXT_BYTES_MAX = 8 * 1024;

interface Latin1Buffer {
  latin1Slice(from: number, to: number): string;
  latin1Write(text: string, at: number): number;
}

/** The bytes of `buffer[from, to)` as one character each. */
export function latin1(buffer: Buffer, from: number, to: number): string {
  return (buffer as unknown as Latin1Buffer).latin1Slice(from, to);
}

/** A head and a small body nearly always end within this; the rest of a long read is decoded only if the head goes on. */
const FIRST_BYTES = 10 * 1024;

/** `latin1` for text that is searched for the end of a head: no more of it than is likely needed. */
export function headText(buffer: Buffer, from: number, to: number, searchFrom: number): string {
  if (to - from <= FIRST_BYTES) return latin1(buffer, from, to);
  const first = latin1(buffer, from, from + FIRST_BYTES);
  return first.includes('\r\n\r\n', searchFrom) ? first : latin1(buffer, from, to);
}

/** Writes one byte per character at `at`; answers how many. */
export function writeLatin1(buffer: Buffer, text: string, at: number): number {
  return (buffer as unknown as Latin1Buffer).latin1Write(text, at);
}
