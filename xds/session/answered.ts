/** How a client has answered for one type: the response that waits for its answer, what was acknowledged last, what was rejected and why. */
import { errorText } from './messages.ts';
import type { DeltaRequest, SotwRequest } from './messages.ts';
import type { Outstanding, TypeStatus, Verdict } from './server-options.ts';

export class Answered implements Pick<TypeStatus, 'state' | 'sentVersion' | 'error'> {
  outstanding: Outstanding | undefined;
  lastNonce = '';
  lastVersion = '';
  ackedVersion = '';
  rejection: { readonly version: string; readonly message: string } | undefined;

  get state(): TypeStatus['state'] {
    if (this.lastNonce === '') return 'NOT_SENT';
    if (this.rejection !== undefined) return 'ERROR';
    return this.outstanding === undefined ? 'SYNCED' : 'STALE';
  }

  get sentVersion(): string {
    return this.lastVersion;
  }

  get error(): string {
    return this.rejection?.message ?? '';
  }

  /** Takes what a request says of an earlier response: it is acknowledged by its nonce, and rejected by an error alone (rules 8, 9). */
  protected settle(request: SotwRequest | DeltaRequest): Verdict | undefined {
    const { outstanding } = this;
    if (outstanding === undefined || request.responseNonce === '' || request.responseNonce !== outstanding.nonce) return undefined;
    this.outstanding = undefined;
    if (request.error === undefined) {
      this.ackedVersion = outstanding.version;
      this.rejection = undefined;
    } else {
      this.rejection = { version: outstanding.version, message: errorText(request.error.message) };
    }
    return { nonce: outstanding.nonce, version: outstanding.version, error: request.error };
  }
}
