/** PEM (RFC 7468), both ways, strict and bounded: what comes from files, secrets and the wire is small, whole and of the expected kind. */
import { Buffer } from 'node:buffer';

/** `CERTIFICATE`, `PRIVATE KEY`, `CERTIFICATE REQUEST` … */
export interface PemBlock {
  readonly label: string;
  readonly der: Buffer;
}

/** Largest PEM text taken, characters: room for some hundred roots, and no more. */
export const PEM_CHARS_MAX = 1_048_576;
/** Most blocks in one text. */
export const PEM_BLOCKS_MAX = 512;

export class PemError extends Error {
  override readonly name = 'PemError';
}

export function encodePem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64');
  return `-----BEGIN ${label}-----\n${base64.replace(/.{1,64}/g, '$&\n')}-----END ${label}-----\n`;
}

/** All blocks in order. Text between blocks is ignored, as RFC 7468 allows; a block that is cut off or holds anything but base64 throws. */
export function decodePem(text: string): PemBlock[] {
  if (text.length > PEM_CHARS_MAX) throw new PemError(`PEM takes at most ${PEM_CHARS_MAX} characters, received ${text.length}`);
  const blocks: PemBlock[] = [];
  const begin = /-----BEGIN ([A-Z0-9 ]{1,64})-----/g;
  for (let found = begin.exec(text); found !== null; found = begin.exec(text)) {
    const label = found[1]!;
    const end = text.indexOf(`-----END ${label}-----`, begin.lastIndex);
    if (end === -1) throw new PemError(`PEM block ${blocks.length + 1} (${label}) has no end line: the text is cut off`);
    const base64 = text.slice(begin.lastIndex, end).replace(/[\s]+/g, '');
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64) || base64.length % 4 !== 0) {
      throw new PemError(`PEM block ${blocks.length + 1} (${label}) holds something that is not base64`);
    }
    if (blocks.length >= PEM_BLOCKS_MAX) throw new PemError(`PEM takes at most ${PEM_BLOCKS_MAX} blocks`);
    blocks.push({ label, der: Buffer.from(base64, 'base64') });
    begin.lastIndex = end;
  }
  return blocks;
}

/** Every block must be a certificate, and there must be one. */
export function decodeCertificates(text: string): Buffer[] {
  const blocks = decodePem(text);
  if (blocks.length === 0) throw new PemError('PEM holds no certificate');
  for (const block of blocks) {
    if (block.label !== 'CERTIFICATE') throw new PemError(`PEM should hold certificates only, found ${block.label}`);
  }
  return blocks.map((block) => block.der);
}
