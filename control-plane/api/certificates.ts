/** `/api/v1/certificates`: who holds which certificate until when, never a key; and rotation by hand. */
import { z } from 'zod';
import { ApiProblem, checked } from './problem.ts';
import type { Area } from './index.ts';
import { doc } from './schema.ts';
import { jsonBody } from './server.ts';

const tokenRequest = z.strictObject({
  namespace: z.string().min(1).max(63),
  serviceAccount: z.string().min(1).max(63).default('default'),
  /** Restricts the token to one workload of that namespace. */
  workload: z.string().min(1).max(253).optional(),
  ttlSeconds: z.number().int().min(1).max(86_400).default(600),
});

export const certificates: Area = (app, context) => {
  const { identities } = context;
  app.get(
    '/api/v1/certificates',
    { schema: doc({ tag: 'certificates', summary: 'Certificates that proxies hold, and the roots they are checked against.' }) },
    () => ({
      trustDomain: identities.authority.trustDomain,
      certificates: identities.certificates(),
      roots: identities.authority.roots.map((root) => ({
        id: root.id,
        phase: root.phase,
        notBefore: new Date(root.notBeforeMs).toISOString(),
        notAfter: new Date(root.notAfterMs).toISOString(),
        expiresInMs: Math.max(0, Math.round(root.notAfterMs - context.clock.wallMs())),
      })),
    }),
  );
  app.post(
    '/api/v1/certificates/rotate',
    { schema: doc({ tag: 'certificates', summary: 'Gives every connected proxy a new certificate now.' }) },
    () => {
      const rotated = identities.rotateAll();
      context.log.info('Certificates were rotated by hand.', { rotated });
      return { rotated };
    },
  );
  app.get('/api/v1/bundle', { schema: doc({ tag: 'certificates', summary: 'The trust bundle: the roots as PEM.' }) }, () => ({
    trustDomain: identities.authority.trustDomain,
    bundlePem: identities.authority.bundle.current.pem,
  }));
  app.post(
    '/api/v1/tokens',
    { schema: doc({ tag: 'certificates', summary: 'A join token: good for one first connection.', body: tokenRequest }) },
    (request, reply) => {
      const asked = checked(tokenRequest, jsonBody(request), 'body');
      reply.code(201);
      return issueToken(context, asked);
    },
  );
};

/** Makes a token for a workload's identity. */
export function issueToken(
  context: Parameters<Area>[1],
  asked: { namespace: string; serviceAccount: string; workload?: string | undefined; ttlSeconds: number },
): { token: string; id: string; spiffeId: string; expiresAt: string } {
  const { identities } = context;
  const spiffeId = `spiffe://${identities.authority.trustDomain}/ns/${asked.namespace}/sa/${asked.serviceAccount}`;
  const attributes: Record<string, string> = asked.workload === undefined ? {} : { workload: `${asked.namespace}/${asked.workload}` };
  try {
    const issued = identities.tokens.issue(spiffeId, { ttlMs: asked.ttlSeconds * 1000, attributes });
    return { token: issued.token, id: issued.id, spiffeId, expiresAt: new Date(issued.expiresMs).toISOString() };
  } catch (error) {
    throw new ApiProblem(400, error instanceof Error ? error.message : String(error));
  }
}
