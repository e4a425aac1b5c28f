#!/usr/bin/env node
/**
 * Where every process starts. Plain JavaScript, and nothing before the compile cache: what was stripped of its types once is taken from
 * there, and Node does not load its TypeScript reader, which would keep 17 MiB for as long as the process lives.
 */
import { enableCompileCache } from 'node:module';

enableCompileCache();
await import('./meshwork.ts');
