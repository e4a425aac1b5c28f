/** Certificates of a bench run, from our own authority, as files that every peer reads. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAuthority } from '../certs/authority.ts';
import { systemClock } from '../lib/clock.ts';
import type { TlsFiles } from './peers/peer.ts';

export function writeCertificates(directory: string): TlsFiles {
  const authority = createAuthority({ trustDomain: 'bench.test', clock: systemClock() });
  const leaf = authority.issue('spiffe://bench.test/ns/default/sa/bench', { dnsNames: ['mesh.test'] });
  const write = (name: string, text: string): string => {
    const file = join(directory, name);
    writeFileSync(file, text, { mode: 0o600 });
    return file;
  };
  return {
    chain: write('chain.pem', leaf.chainPem),
    key: write('key.pem', leaf.keyPem!),
    both: write('both.pem', leaf.chainPem + leaf.keyPem!),
    roots: write('roots.pem', authority.bundle.current.pem),
  };
}
