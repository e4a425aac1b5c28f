/** IP addresses as numbers, for prefix ranges: parsed once at push and once per connection. */
import { isIPv4, isIPv6 } from 'node:net';

/** An address as an unsigned number of 32 or 128 bits. */
export interface IpNumber {
  readonly bits: 32 | 128;
  readonly value: bigint;
}

/** A range, its base already masked. */
export interface IpRange {
  readonly bits: 32 | 128;
  readonly base: bigint;
  readonly prefixLength: number;
}

/** Parses an address; IPv4 inside IPv6 (`::ffff:10.0.0.1`) becomes IPv4, so that one rule covers both. Undefined when it is no address. */
export function parseIp(text: string): IpNumber | undefined {
  const zone = text.indexOf('%');
  const address = zone === -1 ? text : text.slice(0, zone);
  if (isIPv4(address)) return { bits: 32, value: ipv4Number(address) };
  if (!isIPv6(address)) return undefined;
  const value = ipv6Number(address);
  return value >> 32n === 0xffffn ? { bits: 32, value: value & 0xffffffffn } : { bits: 128, value };
}

/** A range from base address and length; undefined when either makes no sense. */
export function parseIpRange(address: string, prefixLength: number): IpRange | undefined {
  const ip = parseIp(address);
  if (ip === undefined || !Number.isInteger(prefixLength) || prefixLength < 0) return undefined;
  const length = ip.bits === 32 && prefixLength > 32 && address.includes(':') ? prefixLength - 96 : prefixLength;
  if (length > ip.bits) return undefined;
  const shift = BigInt(ip.bits - length);
  return { bits: ip.bits, base: (ip.value >> shift) << shift, prefixLength: length };
}

export function inRange(ip: IpNumber, range: IpRange): boolean {
  if (ip.bits !== range.bits) return false;
  const shift = BigInt(range.bits - range.prefixLength);
  return ip.value >> shift === range.base >> shift;
}

/** 127.0.0.0/8 and ::1. */
export function isLoopback(ip: IpNumber): boolean {
  return ip.bits === 32 ? ip.value >> 24n === 127n : ip.value === 1n;
}

/** RFC 1918, loopback, link-local and unique local addresses: what Envoy counts as internal. */
export function isInternal(ip: IpNumber): boolean {
  return INTERNAL.some((range) => inRange(ip, range));
}

const INTERNAL: readonly IpRange[] = (
  [
    ['10.0.0.0', 8],
    ['172.16.0.0', 12],
    ['192.168.0.0', 16],
    ['127.0.0.0', 8],
    ['::1', 128],
    ['fc00::', 7],
  ] as const
).map(([address, length]) => parseIpRange(address, length)!);

function ipv4Number(address: string): bigint {
  let value = 0;
  for (const part of address.split('.')) value = value * 256 + Number(part);
  return BigInt(value);
}

function ipv6Number(address: string): bigint {
  let text = address;
  const lastColon = text.lastIndexOf(':');
  const tail = text.slice(lastColon + 1);
  if (tail.includes('.')) {
    const number = ipv4Number(tail);
    text = `${text.slice(0, lastColon + 1)}${(number >> 16n).toString(16)}:${(number & 0xffffn).toString(16)}`;
  }
  const [left = '', right] = text.split('::');
  const head = left === '' ? [] : left.split(':');
  const end = right === undefined || right === '' ? [] : right.split(':');
  const groups = [...head, ...Array.from({ length: 8 - head.length - end.length }, () => '0'), ...end];
  return groups.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}
