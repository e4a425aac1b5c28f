/** What a kind of resource is to the control plane: its name, its place in the API, and the schema of its body. */
import type { z } from 'zod';

export interface Kind {
  /** Empty for Kubernetes' core group. */
  readonly group: string;
  /** Accepted versions, the preferred one first. */
  readonly versions: readonly string[];
  readonly kind: string;
  /** As in API paths: `httproutes`. */
  readonly plural: string;
  /** What to do with it, in a few words, for help texts. */
  readonly summary: string;
  /** The document's fields beside apiVersion, kind, metadata and status: `spec` for all but EndpointSlice. */
  readonly body: z.ZodObject;
}

/** `gateway.networking.k8s.io/v1`, `v1` for the core group. */
export function apiVersionOf(kind: Kind): string {
  return kind.group === '' ? kind.versions[0]! : `${kind.group}/${kind.versions[0]!}`;
}
