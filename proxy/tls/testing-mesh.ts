/** What the handshake tests share: one mesh, two identities, servers and clients that go away after each test, and forged authorities. */
import { once } from 'node:events';
import { createAuthority } from '../../certs/authority.ts';
import type { Authority } from '../../certs/authority.ts';
import { testCa } from '../../certs/testing.ts';
import type { TestCa, TestLeaf } from '../../certs/testing.ts';
import { systemClock } from '../../lib/clock.ts';
import type { DownstreamTls, Secret, UpstreamTls } from '../../xds/snapshot.ts';
import { createTlsContexts } from './context.ts';
import { TlsError } from './peer.ts';
import { dial, downstreamTls, pairSecret, rootsSecret, startServer, upstreamTls } from './testing.ts';
import type { Connected, TestServer } from './testing.ts';

export const clock = systemClock({ keepAlive: false });
export const nowMs = clock.wallMs();
export const contexts = createTlsContexts({ clock });
export const mesh = createAuthority({ trustDomain: 'mesh.test', clock });
export const WEB = 'spiffe://mesh.test/ns/default/sa/web';
export const REVIEWS = 'spiffe://mesh.test/ns/default/sa/reviews';
export const meshRoots = rootsSecret(mesh.bundle.current.pem);

export const imposter = createAuthority({ trustDomain: 'mesh.test', clock });
export const foreignRoot = testCa(nowMs, 'foreign');
const running: TestServer[] = [];
export const clients: { destroy(): void }[] = [];
/** To be called after each test. */
export async function closeAll(): Promise<void> {
  for (const client of clients.splice(0)) client.destroy();
  for (const server of running.splice(0)) await server.close();
}

export const issued = (id: string, authority: Authority = mesh, ttlMs = 3_600_000): Secret => {
  const leaf = authority.issue(id, { ttlMs });
  return pairSecret(id, leaf.chainPem, leaf.keyPem!);
};
export const forged = (leaf: TestLeaf, ...chain: TestCa[]): Secret =>
  pairSecret('forged', leaf.pem + chain.map((ca) => ca.pem).join(''), leaf.keyPem);

export async function serve(tls: DownstreamTls = downstreamTls(issued(REVIEWS), meshRoots), peek = true): Promise<TestServer> {
  const server = await startServer(contexts.downstream(tls, new Map(), 'listener'), { peek });
  running.push(server);
  return server;
}
export async function call(
  server: TestServer,
  tls: UpstreamTls = upstreamTls(issued(WEB), meshRoots),
  extra: { expectedSans?: string[] } = {},
): Promise<Connected> {
  const connected = await dial({ port: server.port, context: contexts.upstream(tls, new Map(), 'cluster'), ...extra });
  if (connected.socket !== undefined) clients.push(connected.socket);
  return connected;
}
export const reason = (connected: Connected): string =>
  connected.error?.cause instanceof TlsError ? connected.error.cause.reason : `not a TlsError: ${connected.error}`;
/** In TLS 1.3 the client is done before the server has judged it: it learns by a connection that closes without a byte. */
export async function closedWithoutBytes(connected: Connected): Promise<boolean> {
  let bytes = 0;
  connected.socket!.on('data', (chunk) => (bytes += chunk.length));
  connected.socket!.write('GET / HTTP/1.1\r\n\r\n');
  if (!connected.socket!.closed) await once(connected.socket!, 'close');
  return bytes === 0;
}
