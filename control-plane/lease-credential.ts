/** The lease credential: what a data plane that cannot switch to a certificate shows on every connection, good while its registration's lease lives. */
import { RegistrationError } from './sources/registrations.ts';
import type { Registration, Registrations } from './sources/registrations.ts';

/** Sixteen characters name the lease, the rest is its secret. The prefix tells it from a join token (`mwj_`). */
const FORM = /^mwl_([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})$/;

export type LeaseProof = { readonly ok: true; readonly registration: Registration } | { readonly ok: false; readonly message: string };

/** `mwl_<lease>.<secret>`, for `authorization: Bearer`. */
export function leaseCredential(leaseId: string, secret: string): string {
  return `mwl_${leaseId}.${secret}`;
}

export function isLeaseCredential(token: string): boolean {
  return token.startsWith('mwl_');
}

/** Finds the registration that a credential speaks for. Never throws for what a caller sends, and never repeats the secret. */
export function proveLease(token: string, leases: Pick<Registrations, 'holder'>): LeaseProof {
  const [, id, secret] = FORM.exec(token) ?? [];
  if (id === undefined || secret === undefined)
    return { ok: false, message: 'this is no lease credential: it has the form mwl_<lease>.<secret>' };
  try {
    return { ok: true, registration: leases.holder(id, secret) };
  } catch (error) {
    if (error instanceof RegistrationError) return { ok: false, message: error.message };
    throw error;
  }
}
