/** `gateway.networking.k8s.io/v1 HTTPRoute`: which requests to a Service go where, changed how, and for how long. */
import { z } from 'zod';
import { parseDurationMs } from '../../lib/duration.ts';
import type { Kind } from './kind.ts';
import {
  checkFilterRepeats,
  checkFilterUnion,
  checkWeights,
  routeFields,
  ruleFields,
  SHARED_FILTERS,
  sharedFilterFields,
} from './route-schema.ts';
import {
  dnsName,
  duration,
  durationAboveZero,
  headerName,
  headerValue,
  httpMethod,
  issue,
  path,
  pathOrEmpty,
  port,
  regex,
  unsupported,
} from './schema.ts';

const valueMatch = (value: z.ZodString, name: z.ZodString) =>
  z
    .strictObject({ type: z.enum(['Exact', 'RegularExpression']).optional(), name, value: z.string().min(1).max(4096) })
    .superRefine((match, context) => {
      const checked = match.type === 'RegularExpression' ? regex.safeParse(match.value) : value.safeParse(match.value);
      if (!checked.success) issue(context, ['value'], checked.error.issues[0]!.message);
    });

const pathMatch = z
  .strictObject({ type: z.enum(['Exact', 'PathPrefix', 'RegularExpression']).optional(), value: z.string().max(1024).optional() })
  .superRefine((match, context) => {
    const value = match.value ?? '/';
    const checked = match.type === 'RegularExpression' ? regex.safeParse(value) : path.safeParse(value);
    if (!checked.success) issue(context, ['value'], checked.error.issues[0]!.message);
    else if (match.type !== 'RegularExpression' && /\/\/|\/\.\.?(?:\/|$)|%2f/i.test(value))
      issue(context, ['value'], 'must be a normalised path, without "//", "/./", "/../" or "%2F"');
  });

const routeMatch = z.strictObject({
  path: pathMatch.optional(),
  headers: z.array(valueMatch(headerValue, headerName)).max(16).optional(),
  queryParams: z
    .array(valueMatch(z.string(), z.string().min(1).max(256)))
    .max(16)
    .optional(),
  method: httpMethod.optional(),
});
export type HttpRouteMatch = z.infer<typeof routeMatch>;

const pathModifier = z
  .strictObject({
    type: z.enum(['ReplaceFullPath', 'ReplacePrefixMatch']),
    replaceFullPath: path.optional(),
    replacePrefixMatch: pathOrEmpty.optional(),
  })
  .superRefine((modifier, context) =>
    checkFilterUnion(modifier, { ReplaceFullPath: 'replaceFullPath', ReplacePrefixMatch: 'replacePrefixMatch' }, context),
  );
export type PathModifier = z.infer<typeof pathModifier>;

const FILTERS = {
  ...SHARED_FILTERS,
  RequestRedirect: 'requestRedirect',
  URLRewrite: 'urlRewrite',
} as const;

const filter = z
  .strictObject({
    type: z.enum(Object.keys(FILTERS) as (keyof typeof FILTERS)[]),
    ...sharedFilterFields,
    requestRedirect: z
      .strictObject({
        scheme: z.enum(['http', 'https']).optional(),
        hostname: dnsName.optional(),
        path: pathModifier.optional(),
        port: port.optional(),
        statusCode: z.literal([301, 302, 303, 307, 308]).optional(),
      })
      .optional(),
    urlRewrite: z.strictObject({ hostname: dnsName.optional(), path: pathModifier.optional() }).optional(),
    cors: unsupported('cors'),
    externalAuth: unsupported('externalAuth'),
  })
  .superRefine((value, context) => checkFilterUnion(value, FILTERS, context));
export type HttpFilter = z.infer<typeof filter>;

const retry = z.strictObject({
  attempts: z.int().min(0).max(100).optional(),
  codes: z.array(z.int().min(400).max(599)).max(100).optional(),
  backoff: durationAboveZero.optional(),
});

const httpRule = z
  .strictObject({
    ...ruleFields,
    matches: z.array(routeMatch).max(64).optional(),
    filters: z.array(filter).max(16).optional(),
    timeouts: z.strictObject({ request: duration.optional(), backendRequest: duration.optional() }).optional(),
    retry: retry.optional(),
  })
  .superRefine((value, context) => {
    checkWeights(value.backendRefs, context, ['backendRefs']);
    checkFilterRepeats(value.filters ?? [], context, ['filters']);
    const types = new Set((value.filters ?? []).map((entry) => entry.type));
    if (types.has('RequestRedirect') && types.has('URLRewrite'))
      issue(context, ['filters'], 'must not have both RequestRedirect and URLRewrite');
    if (types.has('RequestRedirect') && (value.backendRefs ?? []).length > 0)
      issue(context, ['backendRefs'], 'must be empty, since the rule redirects');
    checkPrefixReplacement(value, context);
    const { request, backendRequest } = value.timeouts ?? {};
    if (request !== undefined && backendRequest !== undefined) {
      const requestMs = parseDurationMs(request);
      if (requestMs > 0 && parseDurationMs(backendRequest) > requestMs)
        issue(context, ['timeouts', 'backendRequest'], `must not be longer than timeouts.request (${request})`);
    }
  });
export type HttpRule = z.infer<typeof httpRule>;

export const httpRouteSpec = z.strictObject({
  ...routeFields,
  rules: z.array(httpRule).max(64).optional(),
});
export type HttpRouteSpec = z.infer<typeof httpRouteSpec>;

export const httpRoute = {
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1beta1'],
  kind: 'HTTPRoute',
  plural: 'httproutes',
  summary: 'where HTTP requests to a Service go: matches, weights, filters, timeouts, retries',
  body: z.strictObject({ spec: httpRouteSpec }),
} satisfies Kind;

/** A prefix can only be replaced where one was matched: every match of the rule must be a PathPrefix. */
function checkPrefixReplacement(
  value: { readonly filters?: readonly HttpFilter[] | undefined; readonly matches?: readonly HttpRouteMatch[] | undefined },
  context: z.RefinementCtx,
): void {
  for (const [index, entry] of (value.filters ?? []).entries()) {
    const modifier = entry.urlRewrite?.path ?? entry.requestRedirect?.path;
    if (modifier?.type !== 'ReplacePrefixMatch') continue;
    for (const match of value.matches ?? []) {
      const type = match.path?.type ?? 'PathPrefix';
      if (type !== 'PathPrefix') issue(context, ['filters', index], `ReplacePrefixMatch needs PathPrefix matches, and one is ${type}`);
    }
  }
}
