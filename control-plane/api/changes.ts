/** `/api/v1/changes`: how far each change has come, proxy by proxy. */
import { z } from 'zod';
import { parseDurationMs } from '../../lib/duration.ts';
import { ApiProblem, checked } from './problem.ts';
import type { Area } from './index.ts';
import { doc } from './schema.ts';

const WAIT_MS_MAX = 60_000;

const waitQuery = z.strictObject({
  wait: z
    .string()
    .optional()
    .describe('Answer only when every connected proxy has acknowledged, one has rejected, or this long has passed: `5s`.'),
});
const listQuery = z.strictObject({ limit: z.coerce.number().int().min(1).max(1000).default(100) });

export const changes: Area = (app, context) => {
  app.get(
    '/api/v1/changes',
    { schema: doc({ tag: 'changes', summary: 'Changes of the mesh, latest first.', query: listQuery }) },
    (request) => {
      const { limit } = checked(listQuery, request.query, 'query');
      return { changes: context.changes.list(limit) };
    },
  );
  app.get<{ Params: { id: string } }>(
    '/api/v1/changes/:id',
    {
      schema: doc({
        tag: 'changes',
        summary: 'One change, with every proxy it concerns.',
        query: waitQuery,
        path: { id: 'From the answer of a write.' },
      }),
    },
    async (request) => {
      const { wait } = checked(waitQuery, request.query, 'query');
      const view = await context.changes.wait(request.params.id, waitMs(wait), request.signal);
      if (view === undefined) throw new ApiProblem(404, `there is no change ${JSON.stringify(request.params.id)}; the last 1,000 are kept`);
      return view;
    },
  );
};

function waitMs(text: string | undefined): number {
  if (text === undefined) return 0;
  try {
    return Math.min(parseDurationMs(text), WAIT_MS_MAX);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ApiProblem(400, `wait: ${message}`, [{ field: 'wait', message }]);
  }
}
