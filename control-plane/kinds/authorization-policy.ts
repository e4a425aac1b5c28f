/** `AuthorizationPolicy`: who may call what. Decided by the receiving sidecar, on the caller's proven identity. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { dnsLabel, headerName, httpMethod, issue, labels, port, targetRefs } from './schema.ts';

/** Exact, `prefix*`, `*suffix`, or `*` for anything at all. */
const pattern = z
  .string()
  .min(1)
  .max(1024)
  .refine((text) => /^\*?[^*]*\*?$/.test(text) && !/^\*[^*]+\*$/.test(text) && text !== '**', {
    error: 'must be a literal, with one star at its start or at its end at most',
  });
const patterns = z.array(pattern).min(1).max(256).optional();

const from = z
  .strictObject({ principals: patterns, notPrincipals: patterns, namespaces: z.array(dnsLabel).min(1).max(256).optional() })
  .refine((value) => Object.values(value).some((entry) => entry !== undefined), {
    error: 'must name principals, notPrincipals or namespaces',
  });

const to = z
  .strictObject({
    methods: z.array(httpMethod).min(1).max(16).optional(),
    paths: patterns,
    notPaths: patterns,
    hosts: patterns,
    /** The application's own ports. */
    ports: z.array(port).min(1).max(64).optional(),
  })
  .refine((value) => Object.values(value).some((entry) => entry !== undefined), {
    error: 'must name methods, paths, notPaths, hosts or ports',
  });

const when = z.strictObject({ header: headerName, values: z.array(pattern).min(1).max(256) });

export const authorizationPolicySpec = z
  .strictObject({
    /** Instances behind these Services. Absent with `selector` absent: every instance of the namespace. */
    targetRefs: targetRefs.optional(),
    selector: z.strictObject({ matchLabels: labels }).optional(),
    /** DENY is decided first; as soon as one ALLOW applies to an instance, what none allows is refused. Default ALLOW. */
    action: z.enum(['ALLOW', 'DENY']).optional(),
    /** One that matches is enough. None at all with ALLOW refuses everything. */
    rules: z
      .array(
        z.strictObject({
          from: z.array(from).min(1).max(64).optional(),
          to: z.array(to).min(1).max(64).optional(),
          when: z.array(when).min(1).max(16).optional(),
        }),
      )
      .max(64)
      .optional(),
  })
  .superRefine((spec, context) => {
    if (spec.targetRefs !== undefined && spec.selector !== undefined) issue(context, ['selector'], 'must not be set beside targetRefs');
    if (spec.action === 'DENY' && (spec.rules ?? []).length === 0)
      issue(context, ['rules'], 'must have a rule, since action is DENY (one `{}` denies everything)');
  });
export type AuthorizationPolicySpec = z.infer<typeof authorizationPolicySpec>;

export const authorizationPolicy = {
  group: 'meshwork.dev',
  versions: ['v1alpha1'],
  kind: 'AuthorizationPolicy',
  plural: 'authorizationpolicies',
  summary: 'who may call what, by proven identity, method and path',
  body: z.strictObject({ spec: authorizationPolicySpec }),
} satisfies Kind;
