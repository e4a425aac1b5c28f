/** The authority and its join tokens in the store, and the step by step renewal of roots: trusted everywhere before one signs. */
import { createAuthority } from '../certs/authority.ts';
import type { Authority } from '../certs/authority.ts';
import { createJoinTokens } from '../certs/join-token.ts';
import type { JoinTokenRecord, JoinTokens } from '../certs/join-token.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Json } from '../xds/snapshot.ts';
import { SECRET_TYPE } from '../xds/session/type-urls.ts';
import type { Proxies } from './proxies.ts';
import type { Publisher } from './publish.ts';
import type { Store } from './store/store.ts';

const AUTHORITY_KEY = 'state';
/** How often a root's age is looked at. */
const TEND_MS = 60_000;

/** The authority of before, or a new one. Throws when the stored one is of another trust domain or damaged. */
export function restoreAuthority(store: Store, trustDomain: string, clock: Clock): Authority {
  const state = store.list('authority').find((record) => record.key === AUTHORITY_KEY)?.value;
  const stored = (state as { readonly trustDomain?: unknown } | undefined)?.trustDomain;
  if (typeof stored === 'string' && stored !== trustDomain)
    throw new Error(
      `${store.place} holds the authority of the trust domain ${stored}, but the Mesh resource says ${trustDomain}. ` +
        'Change the Mesh back, or start with another --data-dir: every proxy has to join anew then.',
    );
  return createAuthority({
    trustDomain,
    clock,
    ...(state === undefined ? {} : { state }),
    save: (next) => store.put('authority', AUTHORITY_KEY, next as unknown as Json),
  });
}

/** Join tokens as hashes. Each save writes only what differs. */
export function restoreTokens(store: Store, trustDomain: string, clock: Clock): JoinTokens {
  const stored = store.list('tokens');
  let saved = new Map(stored.map((record) => [record.key, record.value as unknown as JoinTokenRecord]));
  return createJoinTokens({
    clock,
    trustDomain,
    state: stored.map((record) => record.value),
    save(records) {
      const next = new Map(records.map((record) => [record.hash, record]));
      store.transaction(() => {
        for (const [hash, record] of next) if (saved.get(hash) !== record) store.put('tokens', hash, record as unknown as Json);
        for (const hash of saved.keys()) if (!next.has(hash)) store.delete('tokens', hash);
      });
      saved = next;
    },
  });
}

/** Prepares the next root when it is due, and lets it sign once every connected proxy has acknowledged the bundle that holds it. The answer stops it. */
export function tendRoots(
  authority: Authority,
  deps: { readonly clock: Clock; readonly log: Log; readonly proxies: Proxies; readonly publisher: Publisher },
): () => void {
  const { clock, log, proxies, publisher } = deps;
  let publish = 0;
  let cancel = (): void => undefined;
  const stop = authority.bundle.subscribe(() => {
    publish = publisher.touch();
  });
  const pending = (): string[] =>
    [...proxies.connected]
      .filter((proxy) => proxy.publish < publish || (proxy.types.get(SECRET_TYPE)?.ackedThrough ?? 0) < publish)
      .map((proxy) => proxy.id);
  const tend = (): void => {
    cancel = clock.after(TEND_MS, tend);
    try {
      const step = authority.dueStep();
      if (step === 'prepare') log.info('A new root was prepared; it signs once every proxy trusts it.', { root: authority.prepare().id });
      if (step !== 'activate') return;
      const late = pending();
      if (late.length > 0)
        log.warning('A new root waits for proxies that have not acknowledged it.', { proxies: late.slice(0, 5), count: late.length });
      else {
        const root = authority.activate({ bundleVersion: authority.bundle.current.version, pending: [] });
        log.info('A new root signs now.', { root: root.id });
      }
    } catch (error) {
      log.error('The roots could not be tended; the next try is in a minute.', { error });
    }
  };
  tend();
  return () => {
    stop();
    cancel();
  };
}
