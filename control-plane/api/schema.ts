/** Helpers for the OpenAPI side of routes: zod schemas become JSON Schema, errors and parameters are described once. */
import { z } from 'zod';
import type { FastifySchema } from 'fastify';

export interface RouteDoc {
  readonly tag: string;
  readonly summary: string;
  readonly query?: z.ZodType;
  readonly body?: z.ZodType;
  /** The body is what users write: resources as JSON or YAML. */
  readonly takesResources?: true;
  /** Names of path parameters with what they mean. */
  readonly path?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
}

const PROBLEM = {
  description: 'A problem document (RFC 9457).',
  content: {
    'application/problem+json': {
      schema: {
        type: 'object',
        properties: {
          type: { type: 'string' },
          title: { type: 'string' },
          status: { type: 'integer' },
          detail: { type: 'string' },
          errors: {
            type: 'array',
            items: {
              type: 'object',
              properties: {
                field: { type: 'string' },
                message: { type: 'string' },
                line: { type: 'integer' },
                column: { type: 'integer' },
              },
            },
          },
        },
      },
    },
  },
};

const RESOURCES = {
  content: {
    'application/json': {
      schema: {
        type: 'object',
        description: 'A Service, HTTPRoute, Workload … as in a manifest, or a List of them.',
        properties: { apiVersion: { type: 'string' }, kind: { type: 'string' }, metadata: { type: 'object' }, spec: { type: 'object' } },
        required: ['apiVersion', 'kind'],
      },
    },
    'application/yaml': { schema: { type: 'string', description: 'One or several documents.' } },
  },
};

/** A route's schema for the OpenAPI document. */
export function doc(route: RouteDoc): FastifySchema {
  const strings = (fields: Readonly<Record<string, string>>, required: boolean): Record<string, unknown> => ({
    type: 'object',
    properties: Object.fromEntries(Object.entries(fields).map(([name, description]) => [name, { type: 'string', description }])),
    ...(required ? { required: Object.keys(fields) } : {}),
  });
  return {
    tags: [route.tag],
    summary: route.summary,
    ...(route.query === undefined ? {} : { querystring: jsonSchema(route.query) }),
    ...(route.body === undefined ? {} : { body: jsonSchema(route.body) }),
    ...(route.takesResources === undefined ? {} : { body: RESOURCES }),
    ...(route.path === undefined ? {} : { params: strings(route.path, true) }),
    ...(route.headers === undefined ? {} : { headers: strings(route.headers, false) }),
    response: { 200: { description: 'As asked.', type: 'object', additionalProperties: true }, default: PROBLEM },
  } as FastifySchema;
}

function jsonSchema(schema: z.ZodType): unknown {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { unrepresentable: 'any', io: 'input' });
  return rest;
}
