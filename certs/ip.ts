/** IP addresses as the bytes that certificates hold: 4 for IPv4, 16 for IPv6. */
import { Buffer } from 'node:buffer';
import { isIPv4, isIPv6 } from 'node:net';

/** Bytes of an address in text. Throws for anything else. */
export function ipBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  if (!isIPv6(address)) throw new Error(`not an IP address: ${JSON.stringify(address.slice(0, 64))}`);
  // The URL parser knows every way to write an IPv6 address, the mixed one included, and answers hexadecimal groups.
  const text = new URL(`http://[${address.split('%')[0]!}]/`).hostname.slice(1, -1);
  const [head = '', tail] = text.split('::');
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const words = [...left, ...Array.from({ length: 8 - left.length - right.length }, () => '0'), ...right];
  const bytes = Buffer.alloc(16);
  words.forEach((word, index) => bytes.writeUInt16BE(Number.parseInt(word, 16), index * 2));
  return bytes;
}
