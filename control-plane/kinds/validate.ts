/** From a parsed document to a resource or to problems: every rule of its kind, each with field, rule, value and the nearest right word. */
import { z } from 'zod';
import { didYouMean } from '../../lib/suggest.ts';
import type { JsonObject } from '../../xds/snapshot.ts';
import type { Origin, Problem, Resource } from '../world.ts';
import { KINDS, kindNamed } from './index.ts';
import { apiVersionOf, type Kind } from './kind.ts';
import { metadata } from './schema.ts';

export type Path = readonly (string | number)[];

/** One finding, with its place as a path into the document. `atKey` = the name of the field is wrong, not its value. */
export interface Finding {
  readonly path: Path;
  readonly atKey: boolean;
  readonly message: string;
  readonly severity?: 'warning';
}

/** What became of one document: a resource, or findings and as much of its name as could be read. */
export interface Verdict {
  readonly resource?: Resource;
  readonly name: string;
  readonly findings: readonly Finding[];
}

/** How deep documents may nest; the deepest field of our kinds is at 12. */
const DEPTH_MAX = 64;
const VALUES_MAX = 1_000_000;
const FINDINGS_MAX = 50;

/** Validates a document that came as JSON, such as an API write. At most one resource; problems carry `origin` as their place. */
export function validateResource(value: unknown, origin: Origin): { resource?: Resource; problems: Problem[] } {
  const verdict = judge(value, origin);
  const problems = verdict.findings.map((finding) => problemOf(finding, verdict.name, origin));
  return verdict.resource === undefined ? { problems } : { resource: verdict.resource, problems };
}

/** A finding as users read it. */
export function problemOf(finding: Finding, resource: string, origin: Origin): Problem {
  const problem = { origin, resource, field: fieldPath(finding.path), message: finding.message };
  return finding.severity === undefined ? problem : { ...problem, severity: finding.severity };
}

/** The whole check of one document. Never throws. */
export function judge(value: unknown, origin: Origin): Verdict {
  const unsafe = unsafeValue(value);
  if (unsafe !== undefined) return { name: '', findings: [unsafe] };
  if (!isObject(value))
    return { name: '', findings: [finding([], `must be an object with apiVersion, kind and metadata, received ${shown(value)}`)] };

  const name = nameOf(value);
  const known = kindOf(value);
  if ('finding' in known) return { name, findings: [known.finding] };
  const schema = documentSchema(known.kind);
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const findings = parsed.error.issues.flatMap((entry) => findingsOf(entry, schema, value));
    return { name, findings: findings.slice(0, FINDINGS_MAX) };
  }
  return { name, resource: toResource(value, known.kind, origin), findings: [] };
}

/** `HTTPRoute default/reviews`, or as much of it as is there. */
function nameOf(value: Readonly<Record<string, unknown>>): string {
  const meta = isObject(value['metadata']) ? value['metadata'] : {};
  if (typeof value['kind'] !== 'string' || typeof meta['name'] !== 'string') return '';
  const namespace = typeof meta['namespace'] === 'string' ? meta['namespace'] : 'default';
  return `${value['kind']} ${namespace}/${meta['name']}`.slice(0, 300);
}

/** Kinds of Kubernetes that people keep in the same files: read over with a warning, never an error. */
const FOREIGN_GROUPS = /^(?:apps|batch|autoscaling|policy|networking\.k8s\.io|rbac\.authorization\.k8s\.io|[a-z0-9.-]+\.[a-z]{2,})$/;
const FOREIGN_CORE =
  /^(?:Namespace|Pod|ConfigMap|Secret|ServiceAccount|PersistentVolume|PersistentVolumeClaim|Node|Endpoints|Event|LimitRange|ResourceQuota|ReplicationController|PodTemplate)$/;
const FOREIGN_GATEWAY =
  /^(?:Gateway|GatewayClass|ReferenceGrant|UDPRoute|BackendTLSPolicy|ListenerSet|XListenerSet|XBackendTrafficPolicy|XMesh)$/;

function kindOf(value: Readonly<Record<string, unknown>>): { kind: Kind } | { finding: Finding } {
  const { apiVersion, kind: kindName } = value;
  if (typeof kindName !== 'string')
    return { finding: finding(['kind'], required(kindName, `must be one of ${Object.keys(KINDS).join(', ')}`)) };
  if (typeof apiVersion !== 'string') return { finding: finding(['apiVersion'], required(apiVersion, 'must be a string such as "v1"')) };
  const slash = apiVersion.lastIndexOf('/');
  const group = slash === -1 ? '' : apiVersion.slice(0, slash);
  const version = apiVersion.slice(slash + 1);
  const kind = kindNamed(kindName);
  if (kind !== undefined && kind.group === group) {
    if (kind.versions.includes(version)) return { kind };
    return { finding: finding(['apiVersion'], `must be ${apiVersionOf(kind)} for ${kindName}, received ${shown(apiVersion)}`) };
  }
  const near = didYouMean(kindName, Object.keys(KINDS));
  const foreign =
    group === ''
      ? FOREIGN_CORE.test(kindName)
      : group === 'gateway.networking.k8s.io'
        ? FOREIGN_GATEWAY.test(kindName)
        : FOREIGN_GROUPS.test(group) && group !== 'meshwork.dev';
  if (foreign && kind === undefined && (near === '' || group !== ''))
    return {
      finding: {
        ...finding(['kind'], `${apiVersion} ${kindName} is not a kind that Meshwork reads; the document is left out`),
        severity: 'warning',
      },
    };
  if (kind !== undefined)
    return { finding: finding(['apiVersion'], `must be ${apiVersionOf(kind)} for ${kindName}, received ${shown(apiVersion)}`) };
  return { finding: finding(['kind'], `must be one of ${Object.keys(KINDS).join(', ')}, received ${shown(kindName)}${near}`) };
}

const schemas = new WeakMap<Kind, z.ZodObject>();

function documentSchema(kind: Kind): z.ZodObject {
  let schema = schemas.get(kind);
  if (schema === undefined) {
    // `safeExtend` keeps the body's own refinements.
    schema = kind.body.safeExtend({ apiVersion: z.string(), kind: z.string(), metadata, status: z.unknown().optional() }).strict();
    schemas.set(kind, schema);
  }
  return schema;
}

function toResource(value: Readonly<Record<string, unknown>>, kind: Kind, origin: Origin): Resource {
  const meta = value['metadata'] as z.infer<typeof metadata>;
  const { apiVersion, kind: _kind, metadata: _metadata, status: _status, ...body } = value;
  const spec = 'spec' in kind.body.shape ? body['spec'] : body;
  return {
    apiVersion: apiVersion as string,
    kind: kind.kind,
    metadata: { name: meta.name, namespace: meta.namespace ?? 'default', labels: meta.labels ?? {}, annotations: meta.annotations ?? {} },
    spec: spec as JsonObject,
    origin,
  };
}

/** Values that no schema should walk: too deep, too many, or with names that reach into JavaScript itself. Iterative, so depth costs no stack. */
function unsafeValue(value: unknown): Finding | undefined {
  const pending: { value: unknown; path: Path }[] = [{ value, path: [] }];
  let count = 0;
  while (pending.length > 0) {
    const next = pending.pop()!;
    if (++count > VALUES_MAX) return finding([], `must hold at most ${VALUES_MAX} values`);
    if (typeof next.value !== 'object' || next.value === null) continue;
    if (next.path.length >= DEPTH_MAX) return finding(next.path.slice(0, 8), `must nest at most ${DEPTH_MAX} deep`);
    const isList = Array.isArray(next.value);
    for (const key of Object.keys(next.value)) {
      if (key === '__proto__') return { ...finding([...next.path, key], 'must not be used as the name of a field'), atKey: true };
      const path = [...next.path, isList ? Number(key) : key];
      const child: unknown = (next.value as Record<string, unknown>)[key];
      if (typeof child === 'object' && child !== null) pending.push({ value: child, path });
      else count++;
    }
  }
  return undefined;
}

function findingsOf(entry: z.core.$ZodIssue, schema: z.ZodObject, document: unknown): Finding[] {
  const path = entry.path as Path;
  const value = valueAt(document, path);
  if (entry.code === 'unrecognized_keys') {
    const fields = fieldsAt(schema, path);
    return entry.keys.map((key) => ({ path: [...path, key], atKey: true, message: `unknown field${suggestField(key, fields)}` }));
  }
  if (entry.code === 'invalid_key')
    return [{ path, atKey: true, message: `${entry.issues[0]?.message ?? 'must be a valid name'}, received ${shown(path.at(-1))}` }];
  return [finding(path, ruleOf(entry, value))];
}

function suggestField(key: string, fields: readonly string[]): string {
  const near = didYouMean(key, fields);
  if (near !== '' || fields.length === 0) return near;
  return `; the fields here are ${fields.slice(0, 24).join(', ')}`;
}

function ruleOf(entry: z.core.$ZodIssue, value: unknown): string {
  switch (entry.code) {
    case 'invalid_type':
      return required(value, `must be ${article(entry.expected)}`);
    case 'invalid_value': {
      const values = entry.values.map(String);
      const near = typeof value === 'string' ? didYouMean(value, values) : '';
      const wanted = values.length === 1 ? JSON.stringify(values[0]) : `one of ${values.join(', ')}`;
      return required(value, `must be ${wanted}`) + near;
    }
    case 'too_small':
      return `must be ${entry.inclusive === false ? 'above' : 'at least'} ${entry.minimum}${countWord(entry.origin)}, received ${shown(size(value, entry.origin))}`;
    case 'too_big':
      return `must be ${entry.inclusive === false ? 'below' : 'at most'} ${entry.maximum}${countWord(entry.origin)}, received ${shown(size(value, entry.origin))}`;
    default:
      return entry.message.startsWith('is required') ? entry.message : required(value, entry.message);
  }
}

const article = (type: string): string =>
  ({
    int: 'a whole number',
    object: 'an object',
    array: 'a list',
    record: 'an object',
    number: 'a number',
    boolean: 'true or false',
    string: 'a string',
  })[type] ?? `a ${type}`;

const countWord = (origin: string): string => ({ array: ' entries', string: ' characters' })[origin] ?? '';

const size = (value: unknown, origin: string): unknown =>
  (origin === 'array' || origin === 'string') && (Array.isArray(value) || typeof value === 'string') ? value.length : value;

const required = (value: unknown, rule: string): string =>
  value === undefined ? `is required: ${rule}` : `${rule}, received ${shown(value)}`;

/** A value in a message: short, and always valid JSON or a word. */
export function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'number') return String(value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) return `an object with ${Object.keys(value).slice(0, 5).join(', ') || 'no fields'}`;
  const text = JSON.stringify(value) ?? typeof value;
  return text.length > 120 ? `${text.slice(0, 117)}…` : text;
}

/** Names of the fields that the schema has at `path`, looking through optional and refined wrappers. */
function fieldsAt(schema: z.ZodObject, path: Path): string[] {
  let at: unknown = schema;
  for (const part of path) {
    const inner = unwrapped(at);
    if (inner instanceof z.ZodObject) at = inner.shape[String(part)];
    else if (inner instanceof z.ZodArray) at = inner.element;
    else if (inner instanceof z.ZodRecord) at = inner.valueType;
    else return [];
  }
  const found = unwrapped(at);
  return found instanceof z.ZodObject ? Object.keys(found.shape) : [];
}

function unwrapped(schema: unknown): unknown {
  let at = schema;
  while (at instanceof z.ZodOptional || at instanceof z.ZodNullable) at = at.unwrap();
  return at;
}

function valueAt(document: unknown, path: Path): unknown {
  let at = document;
  for (const part of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part)) return undefined;
    at = (at as Record<string | number, unknown>)[part];
  }
  return at;
}

/** `spec.rules[0].backendRefs[1].weight`; keys that are not plain words are quoted. */
export function fieldPath(path: Path): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else if (/^[A-Za-z_][\w-]*$/.test(part)) text += text === '' ? part : `.${part}`;
    else text += `[${JSON.stringify(part.slice(0, 80))}]`;
  }
  return text;
}

const finding = (path: Path, message: string): Finding => ({ path, atKey: false, message });

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
