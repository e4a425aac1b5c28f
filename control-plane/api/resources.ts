/** `/api/v1/resources`: read, create, replace and delete what users write, with entity tags, dry runs, and problems by line and field. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { atOnce, inSlices } from '../../lib/slices.ts';
import { KINDS } from '../kinds/index.ts';
import type { Kind } from '../kinds/kind.ts';
import { readResources } from '../kinds/parse.ts';
import { documentOf, etagOf, nameOf, resourceKey } from '../sources/api.ts';
import type { Edit } from '../sources/api.ts';
import type { Resource } from '../world.ts';
import type { ApiContext, Preview } from './context.ts';
import type { Area } from './index.ts';
import { ApiProblem, checked } from './problem.ts';
import type { ProblemPlace } from './problem.ts';
import { doc } from './schema.ts';
import type { RawBody } from './server.ts';

interface Path {
  Params: { kind: string; namespace: string; name: string };
}

const RESOURCES_PER_WRITE_MAX = 1_000;
const PATH = { kind: '`HTTPRoute`, `httproute` or `httproutes`', namespace: 'Namespace', name: 'Name' };
const CONDITIONS = {
  'if-match': 'Entity tag of what is to be replaced or deleted, or `*`.',
  'if-none-match': '`*`: only create.',
};
const listQuery = z.strictObject({ kind: z.string().optional(), namespace: z.string().optional() });
const writeQuery = z.strictObject({
  dryRun: z.enum(['true', 'false', '']).optional().describe('`true`: check, and say which proxies would get something else.'),
});

export const resources: Area = (app, context) => {
  app.get(
    '/api/v1/resources',
    { schema: doc({ tag: 'resources', summary: 'Every resource of every source.', query: listQuery }) },
    async (request) => {
      const query = checked(listQuery, request.query, 'query');
      await context.api.caughtUp();
      const kind = query.kind === undefined ? undefined : kindOf(query.kind).kind;
      return {
        resources: context
          .resources()
          .filter(
            (resource) =>
              (kind === undefined || resource.kind === kind) &&
              (query.namespace ?? resource.metadata.namespace) === resource.metadata.namespace,
          )
          .map((resource) => ({ ...documentOf(resource), meshwork: { origin: resource.origin, etag: etagOf(resource) } })),
      };
    },
  );
  app.post(
    '/api/v1/resources',
    {
      schema: doc({
        tag: 'resources',
        summary: 'Creates one or several resources, all or none. JSON or YAML.',
        takesResources: true,
        query: writeQuery,
      }),
    },
    async (request, reply) => {
      const parsed = await inSlices(context.clock, parsing(request));
      for (const resource of parsed) {
        const there = find(context, { kind: resource.kind, ...resource.metadata });
        if (there !== undefined)
          throw new ApiProblem(409, `${nameOf(resourceKey(resource))} exists already${fromWhere(there)}; replace it with PUT and If-Match`);
      }
      return answer(
        context,
        request,
        reply,
        parsed.map((resource) => ({ put: resource })),
        'created',
      );
    },
  );
  app.get<Path>(
    '/api/v1/resources/:kind/:namespace/:name',
    { schema: doc({ tag: 'resources', summary: 'One resource as it was written, with its entity tag.', path: PATH }) },
    (request, reply) => {
      const { kind } = kindOf(request.params.kind);
      // A reader is told what is stored, not what is about to be.
      const stored = context.api.get(`${kind}/${request.params.namespace}/${request.params.name}`);
      const resource = stored ?? required(context, request.params);
      const etag = etagOf(resource);
      reply.header('etag', etag);
      if (tags(request.headers['if-none-match']).includes(etag)) {
        reply.code(304);
        return reply.send();
      }
      return documentOf(resource);
    },
  );
  app.put<Path>(
    '/api/v1/resources/:kind/:namespace/:name',
    {
      schema: doc({
        tag: 'resources',
        summary: 'Creates or replaces one resource. Replacing needs If-Match.',
        takesResources: true,
        query: writeQuery,
        path: PATH,
        headers: CONDITIONS,
      }),
    },
    (request, reply) => put(context, request, reply),
  );
  app.delete<Path>(
    '/api/v1/resources/:kind/:namespace/:name',
    {
      schema: doc({
        tag: 'resources',
        summary: 'Deletes one resource. Needs If-Match.',
        query: writeQuery,
        path: PATH,
        headers: CONDITIONS,
      }),
    },
    (request, reply) => {
      const resource = required(context, request.params);
      ownedByApi(resource);
      checkMatch(request, resource);
      return answer(context, request, reply, [{ delete: resourceKey(resource) }], 'deleted');
    },
  );
};

function put(context: ApiContext, request: FastifyRequest<Path>, reply: FastifyReply): Promise<unknown> {
  const { namespace, name } = request.params;
  const { kind } = kindOf(request.params.kind);
  const parsed = atOnce(parsing(request));
  const resource = parsed[0];
  if (parsed.length !== 1 || resource === undefined) throw new ApiProblem(400, `PUT takes exactly one resource, received ${parsed.length}`);
  const key = resourceKey(resource);
  if (key !== `${kind}/${namespace}/${name}`)
    throw new ApiProblem(400, `the path names ${kind} ${namespace}/${name}, the body ${nameOf(key)}`, [
      { field: 'metadata.name', message: 'must be as in the path' },
    ]);
  const there = find(context, { kind, namespace, name });
  if (there !== undefined) {
    if (tags(request.headers['if-none-match']).includes('*')) throw new ApiProblem(412, `${nameOf(key)} exists already${fromWhere(there)}`);
    ownedByApi(there);
    checkMatch(request, there);
  } else if (request.headers['if-match'] !== undefined) {
    throw new ApiProblem(412, `${nameOf(key)} does not exist, so no entity tag matches it`);
  }
  return answer(
    context,
    request,
    reply,
    [{ put: resource }],
    there === undefined ? 'created' : etagOf(there) === etagOf(resource) ? 'unchanged' : 'replaced',
  );
}

/** Check and write run in one turn of the event loop, so nobody writes in between; the answer waits for the store. */
async function answer(
  context: ApiContext,
  request: FastifyRequest,
  reply: FastifyReply,
  edits: readonly Edit[],
  action: string,
): Promise<unknown> {
  const { dryRun } = checked(writeQuery, request.query, 'query');
  const named = edits.map((edit) => {
    if ('delete' in edit) return { resource: nameOf(edit.delete), action };
    return { resource: nameOf(resourceKey(edit.put)), action, etag: etagOf(edit.put) };
  });
  if (dryRun === 'true' || dryRun === '') {
    return { dryRun: true, resources: named, ...preview(context, edits) };
  }
  const changeId = await context.api.write(edits);
  context.log.info('Resources were written by the API.', { change: changeId, action, resources: named.map((entry) => entry.resource) });
  reply.header('meshwork-change', changeId);
  const first = edits[0];
  if (edits.length === 1 && first !== undefined && 'put' in first) reply.header('etag', etagOf(first.put));
  if (action === 'created') {
    reply.code(201);
    if (edits.length === 1 && first !== undefined && 'put' in first)
      reply.header('location', `/api/v1/resources/${resourceKey(first.put)}`);
  }
  return { changeId, dryRun: false, resources: named };
}

function preview(context: ApiContext, edits: readonly Edit[]): Preview {
  try {
    return context.affectedBy(context.api.preview(edits));
  } catch (error) {
    throw new ApiProblem(422, `no proxy could be configured with this: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The resources of the body, one a step, with what is costly about each. Throws a 422 that names every problem by line, column and field. */
function* parsing(request: FastifyRequest): Generator<void, readonly Resource[]> {
  const body = request.body as RawBody | undefined | null;
  if (body === undefined || body === null || body.text.trim() === '')
    throw new ApiProblem(400, 'the body is empty; it takes one or several resources as JSON or YAML');
  const { resources: parsed, problems } = yield* readResources(body.text, { source: 'api' });
  const wrong: ProblemPlace[] = problems
    .filter((problem) => problem.severity !== 'warning' || parsed.length === 0)
    .map(({ field, message, resource, origin }) => ({
      field,
      message: resource === '' ? message : `${resource}: ${message}`,
      ...(origin.line === undefined ? {} : { line: origin.line }),
      ...(origin.column === undefined ? {} : { column: origin.column }),
    }));
  const first = wrong[0];
  if (first !== undefined) throw new ApiProblem(422, `${first.field === '' ? '' : `${first.field}: `}${first.message}`, wrong);
  if (parsed.length === 0) throw new ApiProblem(400, 'the body has no resource');
  if (parsed.length > RESOURCES_PER_WRITE_MAX)
    throw new ApiProblem(413, `one write takes at most ${RESOURCES_PER_WRITE_MAX} resources, received ${parsed.length}`);
  const seen = new Set<string>();
  for (const resource of parsed) {
    const key = resourceKey(resource);
    if (seen.has(key)) throw new ApiProblem(422, `${nameOf(key)} is there twice`);
    seen.add(key);
    // Kept with the resource for the answer.
    etagOf(resource);
    yield;
  }
  return parsed;
}

function kindOf(word: string): Kind {
  const wanted = word.toLowerCase();
  const found = Object.values(KINDS).find((kind: Kind) => kind.kind.toLowerCase() === wanted || kind.plural === wanted);
  if (found === undefined)
    throw new ApiProblem(404, `there is no kind ${JSON.stringify(word)}; there are ${Object.keys(KINDS).join(', ')}`);
  return found;
}

/** What the API wrote wins over other sources of the same name. The catalog may still have what the API has deleted. */
function find(context: ApiContext, { kind, namespace, name }: Path['Params']): Resource | undefined {
  const written = context.api.upcoming(`${kind}/${namespace}/${name}`);
  if (written !== undefined) return written;
  const other = context.resource(`${kind} ${namespace}/${name}`);
  return other?.origin.source === 'api' ? undefined : other;
}

function required(context: ApiContext, params: Path['Params']): Resource {
  const { kind } = kindOf(params.kind);
  const resource = find(context, { ...params, kind });
  if (resource === undefined) throw new ApiProblem(404, `there is no ${kind} ${params.namespace}/${params.name}`);
  return resource;
}

function ownedByApi(resource: Resource): void {
  if (resource.origin.source !== 'api')
    throw new ApiProblem(409, `${nameOf(resourceKey(resource))} comes${fromWhere(resource)}; change it there`);
}

function fromWhere({ origin }: Resource): string {
  if (origin.source === 'api') return '';
  return ` from ${origin.file === undefined ? origin.source : `${origin.file}:${origin.line ?? 1}`}`;
}

function checkMatch(request: FastifyRequest, resource: Resource): void {
  const wanted = tags(request.headers['if-match']);
  if (wanted.length === 0)
    throw new ApiProblem(
      428,
      `${nameOf(resourceKey(resource))} is there: say which version of it you mean with If-Match (its ETag), or "*" for any`,
    );
  const etag = etagOf(resource);
  if (!wanted.includes('*') && !wanted.includes(etag))
    throw new ApiProblem(412, `${nameOf(resourceKey(resource))} has changed: its entity tag is now ${etag}; read it again and decide anew`);
}

function tags(header: string | undefined): string[] {
  return header === undefined ? [] : header.split(',').map((tag) => tag.trim());
}
