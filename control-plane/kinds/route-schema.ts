/** What the four route kinds of the Gateway API have in common: parents, backends, header and mirror filters. */
import { z } from 'zod';
import { dnsLabel, dnsName, headerName, headerValue, issue, percent, port, unsupported, weight } from './schema.ts';

/** `group` and `kind` default to a Gateway, as the Gateway API says; a mesh route names a Service. */
export const parentRef = z.strictObject({
  group: z.string().max(253).optional(),
  kind: z.string().max(63).optional(),
  name: dnsName,
  namespace: dnsLabel.optional(),
  sectionName: z.string().max(253).optional(),
  port: port.optional(),
});
export type ParentRef = z.infer<typeof parentRef>;

const backendFields = {
  group: z.literal('').optional(),
  kind: z.literal('Service').optional(),
  name: dnsLabel,
  namespace: dnsLabel.optional(),
};

export const mirrorBackendRef = z.strictObject({ ...backendFields, port });

export const backendRef = z.strictObject({ ...backendFields, port: port.optional(), weight: weight.optional() });

const headerList = z
  .array(z.strictObject({ name: headerName, value: headerValue }))
  .max(16)
  .optional();

const modifier = z.strictObject({ set: headerList, add: headerList, remove: z.array(headerName).max(16).optional() });
const FRAMING: ReadonlySet<string> = new Set(['connection', 'transfer-encoding', 'content-length']);

/** `set` may name Host on requests: it is the same as URLRewrite's hostname. */
const headerModifierOf = (message: 'request' | 'response') =>
  modifier.superRefine((value, context) => {
    for (const list of ['set', 'add'] as const) {
      const seen = new Set<string>();
      for (const [index, entry] of (value[list] ?? []).entries()) {
        const name = entry.name.toLowerCase();
        if (seen.has(name)) issue(context, [list, index, 'name'], 'must be unique in its list, whatever the case');
        if (FRAMING.has(name) || (name === 'host' && (message === 'response' || list === 'add')))
          issue(
            context,
            [list, index, 'name'],
            'must not be a header that frames or routes the message (a request filter may set the host)',
          );
        seen.add(name);
      }
    }
  });
export const requestHeaderModifier = headerModifierOf('request');
export const responseHeaderModifier = headerModifierOf('response');
export type HeaderModifier = z.infer<typeof modifier>;

export const requestMirror = z
  .strictObject({
    backendRef: mirrorBackendRef,
    percent: percent.optional(),
    fraction: z.strictObject({ numerator: z.int().min(0), denominator: z.int().min(1).optional() }).optional(),
  })
  .superRefine((mirror, context) => {
    if (mirror.percent !== undefined && mirror.fraction !== undefined) issue(context, ['fraction'], 'must not be set beside percent');
    if (mirror.fraction !== undefined && mirror.fraction.numerator > (mirror.fraction.denominator ?? 100))
      issue(context, ['fraction', 'numerator'], 'must not be larger than the denominator (100 when absent)');
  });

/** Filters that routes for HTTP and for gRPC share, by their type the field that holds them. */
export const SHARED_FILTERS = {
  RequestHeaderModifier: 'requestHeaderModifier',
  ResponseHeaderModifier: 'responseHeaderModifier',
  RequestMirror: 'requestMirror',
} as const;

const headerFilterFields = {
  requestHeaderModifier: requestHeaderModifier.optional(),
  responseHeaderModifier: responseHeaderModifier.optional(),
};

/** The fields of those filters. */
export const sharedFilterFields = {
  ...headerFilterFields,
  requestMirror: requestMirror.optional(),
  extensionRef: unsupported('extensionRef'),
};

const { RequestMirror: _mirror, ...HEADER_FILTERS } = SHARED_FILTERS;

const backendFilter = z
  .strictObject({ type: z.enum(['RequestHeaderModifier', 'ResponseHeaderModifier']), ...headerFilterFields })
  .superRefine((value, context) => checkFilterUnion(value, HEADER_FILTERS, context));

/** A backend whose requests are changed on their way to it alone. */
export const filteredBackendRef = z.strictObject({ ...backendRef.shape, filters: z.array(backendFilter).max(16).optional() });
export type FilteredBackendRef = z.infer<typeof filteredBackendRef>;

/** A rule's fields beside its matches and filters. */
export const ruleFields = {
  name: z.string().max(253).optional(),
  backendRefs: z.array(filteredBackendRef).max(16).optional(),
  sessionPersistence: unsupported('sessionPersistence'),
};

/** A route's fields beside its rules. */
export const routeFields = {
  parentRefs: z.array(parentRef).min(1).max(32),
  hostnames: z.array(z.string().max(253)).max(16).optional(),
  useDefaultGateways: z.string().optional(),
};

/** Of the filter types that `fields` names, exactly the one that `type` says must be there. */
export function checkFilterUnion(
  filter: Readonly<Record<string, unknown>>,
  fields: Readonly<Record<string, string>>,
  context: z.RefinementCtx,
): void {
  const type = String(filter['type']);
  const wanted = fields[type];
  for (const field of Object.values(fields)) {
    if (field === wanted && filter[field] === undefined) issue(context, [field], `is required, since type is ${JSON.stringify(type)}`);
    if (field !== wanted && filter[field] !== undefined) issue(context, [field], `must not be set, since type is ${JSON.stringify(type)}`);
  }
}

/** Filters that say the same thing twice are refused, as the Gateway API does; mirrors may repeat. */
export function checkFilterRepeats(
  filters: readonly { readonly type: string }[],
  context: z.RefinementCtx,
  path: readonly (string | number)[],
): void {
  const seen = new Set<string>();
  for (const [index, filter] of filters.entries()) {
    if (seen.has(filter.type) && filter.type !== 'RequestMirror')
      issue(context, [...path, index, 'type'], 'must not repeat within one list of filters');
    seen.add(filter.type);
  }
}

/** A split needs somewhere to go: weights of which every one is zero are refused (acceptance rule W4). */
export function checkWeights(
  refs: readonly { readonly weight?: number | undefined }[] | undefined,
  context: z.RefinementCtx,
  path: readonly (string | number)[],
): void {
  if (refs === undefined || refs.length === 0) return;
  let sum = 0;
  for (const ref of refs) sum += ref.weight ?? 1;
  if (sum === 0) issue(context, path, 'must have at least one backend with a weight above zero: all weights are 0');
}
