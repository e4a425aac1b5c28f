/** Errors of the API as problem documents (RFC 9457), each with the places that are wrong. */
import type { z } from 'zod';

export interface ProblemPlace {
  /** `spec.rules[0].backendRefs[1].weight`; empty for the whole. */
  readonly field: string;
  readonly message: string;
  readonly line?: number;
  readonly column?: number;
}

const TITLES: Readonly<Record<number, string>> = {
  400: 'The request is not valid',
  401: 'Who calls is not known',
  403: 'Not allowed',
  404: 'There is no such thing',
  409: 'It exists already, or belongs to another source',
  412: 'It has changed in the meantime',
  413: 'The body is too large',
  415: 'This media type is not understood',
  422: 'The resource is not valid',
  428: 'A precondition is required',
  431: 'The head is too large',
  500: 'The control plane failed',
  502: 'The sidecar did not answer',
  503: 'Too much at once',
  507: 'There is no room to store it',
};

/** Thrown anywhere in a handler; becomes the answer. */
export class ApiProblem extends Error {
  override readonly name = 'ApiProblem';
  readonly status: number;
  readonly errors: readonly ProblemPlace[];

  constructor(status: number, detail: string, errors: readonly ProblemPlace[] = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }
}

/** The document; `type` is a stable word per status, so that programs need not read sentences. */
export function problemBody(problem: ApiProblem, instance: string): Record<string, unknown> {
  return {
    type: `https://meshwork.dev/problems/${problem.status}`,
    title: TITLES[problem.status] ?? 'The request failed',
    status: problem.status,
    detail: problem.message,
    instance,
    errors: problem.errors,
  };
}

/** Checks a query or body against its schema. Throws a 400 that names every field. */
export function checked<T extends z.ZodType>(schema: T, value: unknown, what: string): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const errors = result.error.issues.slice(0, 50).map((issue) => ({ field: fieldName(issue.path), message: issue.message }));
  const first = errors[0];
  throw new ApiProblem(400, `${what}: ${first?.field === '' ? '' : `${first?.field}: `}${first?.message ?? 'not valid'}`, errors);
}

function fieldName(path: readonly PropertyKey[]): string {
  return path.reduce<string>((name, part) => {
    if (typeof part === 'number') return `${name}[${part}]`;
    return name === '' ? String(part) : `${name}.${String(part)}`;
  }, '');
}
