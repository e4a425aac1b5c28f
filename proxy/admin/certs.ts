/** `/certs`: the certificates in use, how long they last, never their keys. */
import { json } from './endpoint.ts';
import type { AdminEndpoint } from './endpoint.ts';
import type { CertificateView } from '../certificates.ts';
import type { JsonObject } from '../../xds/snapshot.ts';

export const certs: AdminEndpoint = {
  path: '/certs',
  help: 'print certs on machine',
  mutates: false,
  handle: (_request, context) => {
    const nowMs = context.clock.wallMs();
    const certificates = context.certificates().map(({ roots, chains }) => ({
      ca_cert: roots.map((view) => certificateJson(view, nowMs)),
      cert_chain: chains.map((view) => certificateJson(view, nowMs)),
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
    valid_from: seconds(view.notBeforeMs),
    expiration_time: seconds(view.notAfterMs),
  };
}

/** A timestamp of whole seconds, as certificates have them. */
function seconds(epochMs: number): string {
  return new Date(epochMs).toISOString().replace('.000Z', 'Z');
}
