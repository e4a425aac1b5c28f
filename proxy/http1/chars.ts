/** Character tables of HTTP/1.1: which byte may stand where, as lookups by character code. */

function table(fill: (set: (from: number, to?: number) => void, chars: (text: string) => void) => void): Uint8Array {
  const bytes = new Uint8Array(256);
  fill(
    (from, to = from) => bytes.fill(1, from, to + 1),
    (text) => {
      for (let i = 0; i < text.length; i++) bytes[text.charCodeAt(i)] = 1;
    },
  );
  return bytes;
}

/** `tchar` of RFC 9110 section 5.6.2: methods and field names. */
export const TOKEN = table((set, chars) => {
  set(0x30, 0x39);
  set(0x41, 0x5a);
  set(0x61, 0x7a);
  chars("!#$%&'*+-.^_`|~");
});

/** Field values: tab, space, visible ASCII and obs-text (RFC 9110 section 5.5). */
export const VALUE = table((set) => {
  set(0x09);
  set(0x20, 0x7e);
  set(0x80, 0xff);
});

/** Request targets: visible ASCII without `#` and `\`; wider than RFC 3986 where browsers are (`{`, `|`, `"`), and never a space. */
export const TARGET = table((set) => {
  set(0x21, 0x22);
  set(0x24, 0x5b);
  set(0x5d, 0x7e);
});

/** Host names and IPv4 addresses. Sub-delims and percent signs that RFC 3986 would allow name no host on any network. */
export const HOST = table((set, chars) => {
  set(0x30, 0x39);
  set(0x41, 0x5a);
  set(0x61, 0x7a);
  chars('-._~');
});

/** Between the brackets of an IPv6 literal. */
export const HOST_V6 = table((set, chars) => {
  set(0x30, 0x39);
  set(0x41, 0x46);
  set(0x61, 0x66);
  chars(':.');
});

/** Unreserved characters of RFC 3986 section 2.3: their percent-encoding says the same as they do. */
export const UNRESERVED = table((set, chars) => {
  set(0x30, 0x39);
  set(0x41, 0x5a);
  set(0x61, 0x7a);
  chars('-._~');
});

/** Value of a hexadecimal digit by character code; 255 = none. */
export const HEX = ((): Uint8Array => {
  const bytes = new Uint8Array(256).fill(255);
  for (let i = 0; i < 10; i++) bytes[0x30 + i] = i;
  for (let i = 0; i < 6; i++) {
    bytes[0x41 + i] = 10 + i;
    bytes[0x61 + i] = 10 + i;
  }
  return bytes;
})();

/** Does every character of `text` stand in the table? False for the empty string and for characters above 0xFF. */
export function all(text: string, allowed: Uint8Array): boolean {
  const length = text.length;
  if (length === 0) return false;
  for (let i = 0; i < length; i++) if (allowed[text.charCodeAt(i)] !== 1) return false;
  return true;
}
