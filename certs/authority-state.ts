/** What an authority is when it is not running: a plain object with a checksum, for a store that keeps it where only its owner can read. */
import { createHash } from 'node:crypto';

/** `prepared` is trusted and does not sign yet, `active` signs, `retired` signed before, `tainted` is on its way out. */
export const ROOT_PHASES = ['prepared', 'active', 'retired', 'tainted'] as const;
export type RootPhase = (typeof ROOT_PHASES)[number];

/** Holds a private key: mode 0600, never in logs or answers. Times are epoch milliseconds. */
export interface RootRecord {
  readonly id: string;
  readonly phase: RootPhase;
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly lastLeafNotAfterMs: number;
}

export interface AuthorityState {
  readonly format: 'meshwork-authority-1';
  readonly trustDomain: string;
  readonly roots: readonly RootRecord[];
  /** SHA-256 over the rest, hex. */
  readonly checksum: string;
}

export function sealState(trustDomain: string, roots: readonly RootRecord[]): AuthorityState {
  const plain = roots.map(plainRecord);
  return { format: 'meshwork-authority-1', trustDomain, roots: plain, checksum: checksumOf(trustDomain, plain) };
}

/** Checks shape and checksum of what a store gave back. Throws with the field and the rule. */
export function readState(state: unknown): AuthorityState {
  const fail = (rule: string): never => {
    throw new Error(rule);
  };
  const value = (typeof state === 'object' && state !== null ? state : fail('it should be an object')) as Partial<AuthorityState>;
  if (value.format !== 'meshwork-authority-1') fail(`its format should be meshwork-authority-1, received ${JSON.stringify(value.format)}`);
  if (typeof value.trustDomain !== 'string') return fail('trustDomain should be text');
  if (!Array.isArray(value.roots) || value.roots.length === 0 || value.roots.length > 64) return fail('roots should be a list of 1 to 64');
  const roots = value.roots.map((entry: unknown, index) => {
    const root = (typeof entry === 'object' && entry !== null ? entry : fail(`roots[${index}] should be an object`)) as RootRecord;
    for (const field of ['id', 'certificatePem', 'keyPem'] as const) {
      if (typeof root[field] !== 'string') fail(`roots[${index}].${field} should be text`);
    }
    for (const field of ['notBeforeMs', 'notAfterMs', 'lastLeafNotAfterMs'] as const) {
      if (!Number.isFinite(root[field])) fail(`roots[${index}].${field} should be a number`);
    }
    if (!ROOT_PHASES.includes(root.phase)) fail(`roots[${index}].phase should be one of ${ROOT_PHASES.join(', ')}`);
    return plainRecord(root);
  });
  if (value.checksum !== checksumOf(value.trustDomain, roots)) fail('its checksum does not fit: it was changed or cut off');
  return { format: 'meshwork-authority-1', trustDomain: value.trustDomain, roots, checksum: value.checksum! };
}

/** Exactly the fields of a record, always in one order, so that equal states have equal checksums. */
function plainRecord(root: RootRecord): RootRecord {
  const { id, phase, certificatePem, keyPem, notBeforeMs, notAfterMs, lastLeafNotAfterMs } = root;
  return { id, phase, certificatePem, keyPem, notBeforeMs, notAfterMs, lastLeafNotAfterMs };
}

function checksumOf(trustDomain: string, roots: readonly RootRecord[]): string {
  return createHash('sha256')
    .update(JSON.stringify([trustDomain, roots]))
    .digest('hex');
}
