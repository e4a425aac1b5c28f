/** `/api/v1/registrations`: a workload registers itself, keeps its lease alive, and leaves. */
import { isIP } from 'node:net';
import { z } from 'zod';
import type { FastifyRequest } from 'fastify';
import { RegistrationError } from '../sources/registrations.ts';
import { leaseCredential } from '../lease-credential.ts';
import type { Registration } from '../sources/registrations.ts';
import { issueToken } from './certificates.ts';
import type { ApiContext } from './context.ts';
import type { Area } from './index.ts';
import { ApiProblem, checked } from './problem.ts';
import { doc } from './schema.ts';
import { jsonBody } from './server.ts';

const label = z
  .string()
  .regex(/^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/, { error: 'must be a DNS label (a-z, 0-9 and dashes inside, at most 63 characters)' });
const port = z.int().min(1).max(65535);

const registrationRequest = z
  .strictObject({
    service: label.optional(),
    name: label.optional(),
    namespace: label.default('default'),
    address: z.string().refine((text) => isIP(text) !== 0, { error: 'must be an IP address' }),
    ports: z
      .record(label, port)
      .refine((ports) => Object.keys(ports).length <= 64, { error: 'must have at most 64 ports' })
      .default({}),
    labels: z.record(z.string().min(1).max(317), z.string().max(63)).default({}),
    weight: z.int().min(0).max(1_000_000).default(1),
    serviceAccount: label.default('default'),
    locality: z
      .strictObject({
        region: z.string().max(128).optional(),
        zone: z.string().max(128).optional(),
        subZone: z.string().max(128).optional(),
      })
      .optional(),
    sidecar: z
      .strictObject({
        inboundPort: port,
        outboundPort: port,
        adminPort: port,
        bindAddress: z
          .string()
          .refine((text) => isIP(text) !== 0, { error: 'must be an IP address' })
          .optional(),
      })
      .optional(),
    servicePorts: z
      .array(z.strictObject({ name: label, port, protocol: z.enum(['http', 'http2', 'grpc', 'tcp']).default('http') }))
      .min(1)
      .max(64)
      .optional(),
    ready: z.boolean().default(true),
    ttlSeconds: z.number().min(1).max(300).default(15),
  })
  .refine((request) => request.service !== undefined || Object.keys(request.labels).length > 0, {
    error: 'needs a service or labels that a Service selects',
  })
  .refine((request) => request.sidecar !== undefined || Object.keys(request.ports).length > 0, {
    path: ['ports'],
    error: 'must have at least one port where there is no sidecar: nothing could be reached',
  });

const heartbeat = z.strictObject({ draining: z.boolean().optional(), ready: z.boolean().optional() });
const HOLDER = { authorization: 'Bearer and the lease secret.' };
const ID = { id: 'From the answer to the registration.' };

export const registrations: Area = (app, context) => {
  app.get('/api/v1/registrations', { schema: doc({ tag: 'registrations', summary: 'Workloads with a running lease.' }) }, () => ({
    registrations: context.registrations.list().map((registration) => ({
      name: registration.name,
      namespace: registration.namespace,
      service: registration.service ?? '',
      address: registration.address,
      ports: registration.ports,
      ttlMs: registration.ttlMs,
      draining: registration.draining,
    })),
  }));
  app.post(
    '/api/v1/registrations',
    {
      schema: doc({
        tag: 'registrations',
        summary: 'Registers a workload; answers a lease, a join token and where to connect.',
        body: registrationRequest,
      }),
    },
    (request, reply) => {
      const asked = checked(registrationRequest, jsonBody(request), 'body');
      const { ttlSeconds, sidecar, locality, ...rest } = asked;
      const { registration, secret, changeId } = guarded(() =>
        context.registrations.register({
          ...defined(rest),
          ...(locality === undefined ? {} : { locality: defined(locality) }),
          ...(sidecar === undefined ? {} : { sidecar: { ...sidecar, bindAddress: sidecar.bindAddress ?? asked.address } }),
          ttlMs: Math.round(ttlSeconds * 1000),
        }),
      );
      reply.code(201).header('meshwork-change', changeId);
      return {
        id: registration.id,
        name: registration.name,
        namespace: registration.namespace,
        nodeId: `${registration.name}.${registration.namespace}`,
        lease: {
          id: registration.id,
          secret,
          ttlMs: registration.ttlMs,
          // For data planes that show the same words on every connection, as Envoy does.
          credential: leaseCredential(registration.id, secret),
        },
        ...joinOf(context, registration),
        changeId,
      };
    },
  );
  app.put<{ Params: { id: string } }>(
    '/api/v1/registrations/:id/heartbeat',
    {
      schema: doc({
        tag: 'registrations',
        summary: 'Renews the lease; `ready: false` and `draining: true` take the workload out of balancing.',
        body: heartbeat,
        path: ID,
        headers: HOLDER,
      }),
    },
    (request) => {
      const state = checked(heartbeat, jsonBody(request), 'body');
      return guarded(() => context.registrations.heartbeat(request.params.id, secretOf(request), defined(state)));
    },
  );
  app.post<{ Params: { id: string } }>(
    '/api/v1/registrations/:id/token',
    {
      schema: doc({ tag: 'registrations', summary: 'A new join token, for a sidecar that was started again.', path: ID, headers: HOLDER }),
    },
    (request, reply) => {
      const registration = guarded(() => context.registrations.holder(request.params.id, secretOf(request)));
      reply.code(201);
      return joinOf(context, registration);
    },
  );
  app.delete<{ Params: { id: string } }>(
    '/api/v1/registrations/:id',
    { schema: doc({ tag: 'registrations', summary: 'Ends the lease now.', path: ID, headers: HOLDER }) },
    (request, reply) => {
      const { changeId } = guarded(() => context.registrations.remove(request.params.id, secretOf(request)));
      reply.header('meshwork-change', changeId);
      return { changeId };
    },
  );
};

/** What a sidecar needs for its first connection. */
function joinOf(context: ApiContext, registration: Registration): Record<string, unknown> {
  const { namespace, serviceAccount, name } = registration;
  const { token, spiffeId, expiresAt } = issueToken(context, { namespace, serviceAccount, workload: name, ttlSeconds: 600 });
  const { bundle, trustDomain } = context.identities.authority;
  return {
    joinToken: token,
    joinTokenExpiresAt: expiresAt,
    spiffeId,
    trustDomain,
    bundlePem: bundle.current.pem,
    ...context.addresses(),
    // An address is no name that TLS can ask for, so the certificate of the xDS port is checked against this one.
    xdsServerName: 'localhost',
    xdsServerId: context.identities.serverId,
  };
}

function secretOf(request: FastifyRequest): string {
  const match = /^Bearer ([A-Za-z0-9_-]{1,200})$/.exec(request.headers.authorization ?? '');
  if (match === null) throw new ApiProblem(401, 'the lease secret is missing: Authorization: Bearer <secret>');
  return match[1]!;
}

const STATUS = { gone: 404, secret: 403, taken: 409, full: 507, invalid: 400 } as const;

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof RegistrationError) throw new ApiProblem(STATUS[error.reason], error.message);
    throw error;
  }
}

/** Leaves out what is undefined, as exact optional properties want it. */
function defined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as never;
}
