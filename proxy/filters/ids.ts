/** Random ids in hex: request ids (UUID version 4), trace and span ids. Not secrets. */
import { latin1 } from '../http1/bytes.ts';
import type { Random } from '../../lib/random.ts';

/** Character codes of the sixteen digits. */
const HEX = Uint8Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));
/** What stands at a place of an id: any digit, one of 8 to b, or this very character. */
const ANY = 0;
const VARIANT = 1;

/** `x` is any digit, `v` the variant of a UUID, everything else stands for itself. */
function formOf(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => (character === 'x' ? ANY : character === 'v' ? VARIANT : character.charCodeAt(0)));
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
  readonly #form: Uint8Array;
  #text = '';
  #at = 0;

  constructor(random: Random, form: Uint8Array) {
    this.#random = random;
    this.#form = form;
  }

  take(): string {
    if (this.#at >= this.#text.length) this.#make();
    const at = this.#at;
    this.#at = at + this.#form.length;
    return this.#text.slice(at, this.#at);
  }

  #make(): void {
    const form = this.#form;
    const bytes = Buffer.allocUnsafe(IDS * form.length);
    let bits = 0;
    for (let i = 0, place = 0; i < bytes.length; i++, place = place + 1 === form.length ? 0 : place + 1) {
      if (i % DIGITS_PER_DRAW === 0) bits = (this.#random() * 4294967296) >>> 0;
      const kind = form[place]!;
      bytes[i] = kind === ANY ? HEX[bits & 15]! : kind === VARIANT ? HEX[(bits & 3) | 8]! : kind;
      bits >>>= 4;
    }
    this.#text = latin1(bytes, 0, bytes.length);
    this.#at = 0;
  }
}

/** RFC 9562 section 5.4. */
const UUID = formOf('xxxxxxxx-xxxx-4xxx-vxxx-xxxxxxxxxxxx');
const SPAN = formOf('xxxxxxxxxxxxxxxx');

const STOCKS = new WeakMap<Random, { readonly uuids: Stock; readonly spans: Stock }>();

function stocksOf(random: Random): { readonly uuids: Stock; readonly spans: Stock } {
  let stocks = STOCKS.get(random);
  if (stocks === undefined) {
    stocks = { uuids: new Stock(random, UUID), spans: new Stock(random, SPAN) };
    STOCKS.set(random, stocks);
  }
  return stocks;
}

/** Makes ids from one source of chance. */
export interface Ids {
  /** A UUID version 4. */
  uuid(): string;
  /** 32 hex digits, never all zero (W3C Trace Context section 3.2.2.3). */
  traceId(): string;
  /** 16 hex digits, never all zero. */
  spanId(): string;
}

/** The ids of a source of chance; all who ask with the same one share a stock. */
export function idsOf(random: Random): Ids {
  const { uuids, spans } = stocksOf(random);
  const spanId = (): string => {
    const id = spans.take();
    return id === '0000000000000000' ? '0000000000000001' : id;
  };
  return { uuid: () => uuids.take(), spanId, traceId: () => spans.take() + spanId() };
}
