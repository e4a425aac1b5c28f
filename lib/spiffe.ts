/** SPIFFE ids: parsed once, strictly, at every door where one comes in (SPIFFE-ID standard, section 2). */

/** `spiffe://<trustDomain><path>`; the path starts with a slash. */
export interface SpiffeId {
  readonly trustDomain: string;
  readonly path: string;
}

const ID_BYTES_MAX = 2048;
const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/;
const SEGMENT = /^[A-Za-z0-9._-]+$/;

/** Parses an id. Throws with the rule and the value for anything outside the standard: upper-case host, port, userinfo, query, `%`, empty or dot segments, trailing slash. */
export function parseSpiffeId(text: string): SpiffeId {
  const fail = (rule: string): never => {
    throw new Error(`not a SPIFFE id: ${rule}, received ${JSON.stringify(text.slice(0, 200))}`);
  };
  if (text.length > ID_BYTES_MAX) return fail(`at most ${ID_BYTES_MAX} bytes`);
  if (!text.startsWith('spiffe://')) return fail('must start with spiffe://');
  const rest = text.slice('spiffe://'.length);
  const slash = rest.indexOf('/');
  const trustDomain = slash === -1 ? rest : rest.slice(0, slash);
  const path = slash === -1 ? '' : rest.slice(slash);
  if (!TRUST_DOMAIN.test(trustDomain)) return fail('the trust domain takes a-z, 0-9, dot, dash and underscore only');
  if (path !== '') {
    for (const segment of path.slice(1).split('/')) {
      if (!SEGMENT.test(segment) || segment === '.' || segment === '..')
        return fail('path segments take letters, digits, dot, dash and underscore, and are never empty, "." or ".."');
    }
  }
  return { trustDomain, path };
}

export function formatSpiffeId(id: SpiffeId): string {
  return `spiffe://${id.trustDomain}${id.path}`;
}

/** The id of a workload by Istio's convention: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. */
export function workloadId(trustDomain: string, namespace: string, serviceAccount: string): string {
  return formatSpiffeId(parseSpiffeId(`spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`));
}

/** Namespace and service account of an id that follows Istio's convention, else undefined. */
export function workloadOf(id: SpiffeId): { namespace: string; serviceAccount: string } | undefined {
  const match = /^\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(id.path);
  return match === null ? undefined : { namespace: match[1]!, serviceAccount: match[2]! };
}
