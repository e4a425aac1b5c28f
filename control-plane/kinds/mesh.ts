/** `Mesh`: settings of the whole mesh. There is one at most; what it leaves out keeps its default. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { dnsName, duration, durationAboveZero, percent } from './schema.ts';

export const meshSpec = z.strictObject({
  /** First part of every SPIFFE id. Default `cluster.local`. */
  trustDomain: dnsName.optional(),
  /** Last part of every service's full name. Default `cluster.local`. */
  clusterDomain: dnsName.optional(),
  /** What sidecars accept: STRICT mTLS only, PERMISSIVE plaintext too, DISABLE no TLS at all. Default PERMISSIVE. */
  mtls: z.enum(['STRICT', 'PERMISSIVE', 'DISABLE']).optional(),
  /** Life of a workload's certificate; it is renewed at half of it. Default 24h. */
  certificateTtl: durationAboveZero.optional(),
  /** Default off. */
  accessLog: z.enum(['off', 'text', 'json']).optional(),
  tracing: z
    .strictObject({
      /** Share of requests without a sampling decision of their own. Default 1. */
      samplingPercent: percent.optional(),
      /** Base URL of an OTLP/HTTP receiver, such as `http://127.0.0.1:4318`. Default none: nothing is exported. */
      otlpEndpoint: z
        .string()
        .max(2048)
        .refine((text) => /^http:\/\/[^\s/?#@]+(?:\/[^\s?#]*)?$/.test(text) && URL.canParse(text), {
          error:
            'must be an http URL without credentials, query or fragment (there are no roots to check a receiver by, so TLS to it is not supported)',
        })
        .optional(),
    })
    .optional(),
  /** For routes that name none. Default 0s: none. */
  requestTimeout: duration.optional(),
  /** Whether sidecars pass on requests to hosts that the mesh does not know. Default true. */
  outboundPassthrough: z.boolean().optional(),
});
export type MeshSpec = z.infer<typeof meshSpec>;

export const mesh = {
  group: 'meshwork.dev',
  versions: ['v1alpha1'],
  kind: 'Mesh',
  plural: 'meshes',
  summary: 'settings of the whole mesh: trust domain, mTLS mode, telemetry, defaults',
  body: z.strictObject({ spec: meshSpec }),
} satisfies Kind;
