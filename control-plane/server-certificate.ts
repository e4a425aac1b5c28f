/** The control plane's own certificate on its TLS port: issued by its own authority, renewed in place, trusting the bundle of the moment. */
import { ServerCredentials } from '@grpc/grpc-js';
import { isIP } from 'node:net';
import { renewalDelayMs } from '../certs/rotation.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import type { Identities } from './identity.ts';

interface TlsContext {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Asks for a client certificate and leaves it to the handler what to make of callers without one: a join token is their other way in. */
class MeshCredentials extends ServerCredentials {
  constructor(context: TlsContext) {
    super({ requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.2' }, context);
  }

  replace(context: TlsContext): void {
    this.updateSecureContextOptions(context);
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

const RETRY_MS = 10_000;

/** `names` are DNS names and IP addresses beside `localhost`, 127.0.0.1 and ::1. */
export function createServerCertificate(
  identities: Identities,
  names: readonly string[],
  deps: { readonly clock: Clock; readonly log: Log; readonly random: Random },
): { readonly credentials: ServerCredentials; close(): void } {
  const { clock, log } = deps;
  const addresses = ['127.0.0.1', '::1', ...names.filter((name) => isIP(name) !== 0)];
  const dnsNames = ['localhost', ...names.filter((name) => isIP(name) === 0)];
  let cancel = (): void => undefined;
  let issued = identities.issueServer(dnsNames, addresses);
  const context = (): TlsContext => ({ ca: identities.authority.bundle.current.pem, cert: issued.chainPem, key: issued.keyPem ?? '' });
  const credentials = new MeshCredentials(context());
  const renew = (): void => {
    try {
      issued = identities.issueServer(dnsNames, addresses);
      credentials.replace(context());
      arm();
    } catch (error) {
      log.error("The control plane's own certificate could not be renewed; the old one stays.", { error });
      cancel = clock.after(RETRY_MS, renew);
    }
  };
  const arm = (): void => {
    cancel();
    cancel = clock.after(renewalDelayMs(issued, clock.wallMs(), deps.random), renew);
  };
  arm();
  const stop = identities.authority.bundle.subscribe(() => credentials.replace(context()));
  return {
    credentials,
    close() {
      stop();
      cancel();
    },
  };
}
