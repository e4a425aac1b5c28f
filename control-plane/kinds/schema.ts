/** Pieces that the schemas of several kinds share: names, ports, durations, label selectors, references, regular expressions. */
import { isIP } from 'node:net';
import { RE2JS } from 're2js';
import { z } from 'zod';
import { parseDurationMs } from '../../lib/duration.ts';

/** A rule as users read it: the value is added when the message is made. */
const rule = (sentence: string): { error: string } => ({ error: sentence });

export const DNS_LABEL = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/;
const DNS_SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*$/;
const LABEL_KEY = /^(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;
const TOKEN = /^[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}$/;
/** RFC 9110 field values: no control characters but tab; bytes above 0x7f stay out, as proxies disagree on them. */
const FIELD_VALUE = /^[\t\x20-\x7e]*$/;

export const dnsLabel = z.string().regex(DNS_LABEL, rule('must be a DNS label (a-z, 0-9 and dashes inside, at most 63 characters)'));
export const dnsName = z
  .string()
  .max(253)
  .regex(DNS_SUBDOMAIN, rule('must be a DNS name (labels of a-z, 0-9 and dashes, joined by dots, at most 253 characters)'));
export const labels = z.record(
  z.string().regex(LABEL_KEY, rule('must be a label key (an optional DNS prefix and a slash, then letters, digits, -, _ and .)')),
  z.string().regex(LABEL_VALUE, rule('must be a label value (letters, digits, -, _ and . inside, at most 63 characters)')),
);
export const port = z.int().min(1).max(65535);
/** Weights are bounded as in the Gateway API, so that no sum overflows. */
export const weight = z.int().min(0).max(1_000_000);
export const percent = z.number().min(0).max(100);
export const headerName = z.string().regex(TOKEN, rule('must be a header name (an HTTP token, at most 256 characters)'));
export const headerValue = z.string().max(4096).regex(FIELD_VALUE, rule('must be a header value (printable ASCII and tabs)'));
export const httpMethod = z.enum(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH']);

export const ipAddress = z
  .string()
  .refine((text) => isIP(text) !== 0, rule('must be an IP address (a name is not: endpoints are dialled without DNS)'));

/** Gateway API durations: `10s`, `1m30s`, `500ms`. */
export const duration = z.string().refine(isDuration, {
  error: 'must be a duration of digits and units (h, m, s, ms) like "1m30s"',
  // Later rules compute with the value, so they must not see a bad one.
  abort: true,
});
export const durationAboveZero = duration.refine((text) => parseDurationMs(text) > 0, rule('must be longer than zero'));

/** A port number or the name of one. */
export const portOrName = z.custom<number | string>(
  (value) =>
    (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 65535) ||
    (typeof value === 'string' && /^(?=.*[a-z])[a-z0-9](?:[-a-z0-9]{0,13}[a-z0-9])?$/.test(value)),
  rule('must be a port from 1 to 65535 or the name of one (a-z, 0-9 and dashes, at most 15 characters)'),
);

/** RE2 syntax, since matching must take linear time; bounded, since compiling takes memory. */
export const regex = z
  .string()
  .min(1)
  .max(1024)
  .refine((text) => {
    try {
      RE2JS.compile(text);
      return true;
    } catch {
      return false;
    }
  }, rule('must be a regular expression of RE2 (no look-around, no back-references)'));

export const path = z
  .string()
  .max(1024)
  .regex(/^\/[^\s?#]*$/, rule('must be an absolute path (it starts with a slash and has no query, fragment or white space)'));

/** A path, or nothing at all where a prefix is to be cut off. */
export const pathOrEmpty = z
  .string()
  .refine((text) => text === '' || path.safeParse(text).success, rule('must be an absolute path or empty'));

/** A field that others know and we do not have: told apart from a typing mistake. */
export const unsupported = (what: string): z.ZodOptional<z.ZodCustom<undefined, undefined>> =>
  z.custom<undefined>((value) => value === undefined, rule(`${what} is not supported by Meshwork`)).optional();

/** What a policy is attached to: Services of its own namespace. */
export const targetRefs = z
  .array(z.strictObject({ group: z.literal('').optional(), kind: z.literal('Service'), name: dnsLabel }))
  .min(1)
  .max(32);

/** Fields that every kind's `metadata` may carry; those of Kubernetes' own bookkeeping are read over. */
export const metadata = z.strictObject({
  name: dnsName,
  namespace: dnsLabel.optional(),
  labels: labels.nullish(),
  annotations: z.record(z.string().min(1).max(317), z.string().max(262_144)).nullish(),
  generateName: z.string().optional(),
  uid: z.string().optional(),
  resourceVersion: z.string().optional(),
  generation: z.number().optional(),
  creationTimestamp: z.string().nullish(),
  deletionTimestamp: z.string().nullish(),
  deletionGracePeriodSeconds: z.number().nullish(),
  ownerReferences: z.array(z.unknown()).optional(),
  finalizers: z.array(z.string()).optional(),
  managedFields: z.array(z.unknown()).optional(),
  selfLink: z.string().optional(),
});

/** Adds an issue at `path` below the value that is refined. */
export function issue(context: z.RefinementCtx, path: readonly (string | number)[], message: string): void {
  context.addIssue({ code: 'custom', path: [...path], message });
}

function isDuration(text: string): boolean {
  try {
    parseDurationMs(text);
    return true;
  } catch {
    return false;
  }
}
