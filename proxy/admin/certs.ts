/** `/certs`: the certificates in use, how long they last, never their keys. */
import { json } from './endpoint.ts';
import type { AdminEndpoint } from './endpoint.ts';
import type { JsonObject } from '../../xds/snapshot.ts';

export interface CertificateView {
  /** Where it is used or what its secret is called. */
  readonly path: string;
  readonly serialNumber: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly authority: boolean;
}

export const certs: AdminEndpoint = {
  path: '/certs',
  help: 'print certs on machine',
  mutates: false,
  handle: (_request, context) => {
    const nowMs = context.clock.wallMs();
    const certificates = context.certificates().map((view) => ({
      [view.authority ? 'ca_cert' : 'cert_chain']: [certificateJson(view, nowMs)],
    }));
    return json({ certificates });
  },
};

const DAY_MS = 86_400_000;

function certificateJson(view: CertificateView, nowMs: number): JsonObject {
  return {
    path: view.path,
    serial_number: view.serialNumber,
    subject_alt_names: [...view.uris.map((uri) => ({ uri })), ...view.dnsNames.map((dns) => ({ dns }))],
    days_until_expiration: String(Math.max(0, Math.floor((view.notAfterMs - nowMs) / DAY_MS))),
    valid_from: new Date(view.notBeforeMs).toISOString(),
    expiration_time: new Date(view.notAfterMs).toISOString(),
  };
}
