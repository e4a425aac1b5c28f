/** The areas of the API: one line each. */
import type { FastifyInstance } from 'fastify';
import { certificates } from './certificates.ts';
import { changes } from './changes.ts';
import type { ApiContext } from './context.ts';
import { proxies } from './proxies.ts';
import { registrations } from './registrations.ts';
import { resources } from './resources.ts';
import { services } from './services.ts';
import { system } from './system.ts';

/** Adds its routes to the server. */
export type Area = (app: FastifyInstance, context: ApiContext) => void;

export const AREAS = { system, services, resources, proxies, changes, certificates, registrations } satisfies Record<string, Area>;
