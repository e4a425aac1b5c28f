/** Random ids in hex: request ids (UUID version 4), trace and span ids. Not secrets. */
import { latin1 } from '../http1/bytes.ts';
import type { Random } from '../../lib/random.ts';

/** Character codes of the sixteen digits. */
const HEX = Uint8Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));
/** What stands at a place of an id: any digit, one of 8 to b, or this very character. */
const ANY = 0;
const VARIANT = 1;

/** `#` is any digit, `@` the variant of a UUID, everything else stands for itself. */
function formOf(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => (character === '#' ? ANY : character === '@' ? VARIANT : character.charCodeAt(0)));
}

/** How many ids are made at a time: a text of a few kilobytes. */
const IDS = 64;
const DIGITS_PER_DRAW = 8;

/**
 * Ids of one form, made many at a time: one text for all of them, cut as they are asked for. Putting each together by itself took two dozen
 * short strings.
 */
class Stock {
  readonly #random: Random;
  readonly #length: number;
  /** The form as often as there are ids, and the places in it that change. */
  readonly #bytes: Buffer;
  readonly #digits: Uint16Array;
  readonly #variants: Uint16Array;
  #text = '';
  #at = 0;

  constructor(random: Random, form: Uint8Array) {
    this.#random = random;
    this.#length = form.length;
    this.#bytes = Buffer.alloc(IDS * form.length, form);
    const places = (kind: number): Uint16Array => Uint16Array.from(this.#bytes.keys().filter((i) => this.#bytes[i] === kind));
    this.#digits = places(ANY);
    this.#variants = places(VARIANT);
  }

  take(): string {
    if (this.#at >= this.#text.length) this.#make();
    const at = this.#at;
    this.#at = at + this.#length;
    return this.#text.slice(at, this.#at);
  }

  #make(): void {
    const bytes = this.#bytes;
    const digits = this.#digits;
    let bits = 0;
    for (let i = 0; i < digits.length; i++) {
      if ((i & (DIGITS_PER_DRAW - 1)) === 0) bits = (this.#random() * 4294967296) >>> 0;
      bytes[digits[i]!] = HEX[bits & 15]!;
      bits >>>= 4;
    }
    for (const place of this.#variants) bytes[place] = HEX[8 + Math.floor(this.#random() * 4)]!;
    this.#text = latin1(bytes, 0, bytes.length);
    this.#at = 0;
  }
}

const REQUEST_ID = 'x-request-id: ';
const TRACE_PARENT = 'traceparent: ';
/** RFC 9562 section 5.4. */
const REQUEST_LINE = formOf(`${REQUEST_ID}########-####-4###-@###-############\r\n`);
/** W3C Trace Context section 3.2: version, trace id, span id, flags. */
const SAMPLED_LINE = formOf(`${TRACE_PARENT}00-${'#'.repeat(32)}-${'#'.repeat(16)}-01\r\n`);
const UNSAMPLED_LINE = formOf(`${TRACE_PARENT}00-${'#'.repeat(32)}-${'#'.repeat(16)}-00\r\n`);
const SPAN = formOf('#'.repeat(16));
const ZERO_SPAN = '0'.repeat(16);
const ZERO_TRACE = '0'.repeat(32);

/** Makes ids from one source of chance. Whole header lines come from the stock too: the id is a part of its line. */
export interface Ids {
  /** `x-request-id` with a UUID version 4, as a line; `idOf` cuts the id out. */
  requestLine(): string;
  /** `traceparent` of a new trace, as a line. Neither id is all zero. */
  traceLine(sampled: boolean): string;
  /** 16 hex digits, never all zero. */
  spanId(): string;
}

/** The parts of a line of `Ids`. */
export const idOf = (requestLine: string): string => requestLine.slice(REQUEST_ID.length, -2);
export const parentOf = (traceLine: string): string => traceLine.slice(TRACE_PARENT.length, -2);
export const traceIdOf = (traceLine: string): string => traceLine.slice(TRACE_PARENT.length + 3, TRACE_PARENT.length + 35);
export const spanIdOf = (traceLine: string): string => traceLine.slice(TRACE_PARENT.length + 36, TRACE_PARENT.length + 52);

const IDS_OF = new WeakMap<Random, Ids>();

/** The ids of a source of chance; all who ask with the same one share a stock. */
export function idsOf(random: Random): Ids {
  let ids = IDS_OF.get(random);
  if (ids === undefined) IDS_OF.set(random, (ids = createIds(random)));
  return ids;
}

function createIds(random: Random): Ids {
  const requests = new Stock(random, REQUEST_LINE);
  const sampled = new Stock(random, SAMPLED_LINE);
  const unsampled = new Stock(random, UNSAMPLED_LINE);
  const spans = new Stock(random, SPAN);
  return {
    requestLine: () => requests.take(),
    traceLine: (isSampled) => {
      const line = (isSampled ? sampled : unsampled).take();
      if (spanIdOf(line) !== ZERO_SPAN && traceIdOf(line) !== ZERO_TRACE) return line;
      // Once in the age of the universe, and in tests.
      return `${TRACE_PARENT}00-${'0'.repeat(31)}1-${'0'.repeat(15)}1-${isSampled ? '01' : '00'}\r\n`;
    },
    spanId: () => {
      const id = spans.take();
      return id === ZERO_SPAN ? `${'0'.repeat(15)}1` : id;
    },
  };
}
