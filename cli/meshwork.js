#!/usr/bin/env node
/**
 * Where every process starts: with the flags for a small heap, and with the compile cache. Plain JavaScript, and nothing before these two: what
 * was stripped of its types once is taken from the cache, and Node does not load its TypeScript reader, which would keep 17 MiB for as long as
 * the process lives.
 */
import { enableCompileCache } from 'node:module';

/**
 * Flags that Node and V8 read before any program runs. Started without any, as `bin` does, this process begins again with them, which takes about
 * 40 ms; package.json and the Dockerfile give the same ones (`test/start.test.ts`). Why these: docs/performance-notes.md.
 */
const NODE_FLAGS = ['--max-semi-space-size=4', '--no-parallel-scavenge', '--no-incremental-marking-task', '--v8-pool-size=1'];

/**
 * A control plane's heap is ten times a sidecar's. Two threads and young pages that stay where they are, if a tenth of one is in use, shorten
 * the pauses of its full collections; what sockets have read counts as part of the heap, and is no reason for one by itself (docs/scale.md). The
 * last of two flags is in force.
 */
const CONTROL_PLANE_FLAGS = ['--v8-pool-size=2', '--page-promotion-threshold=10', '--external-memory-accounted-in-global-limit'];
const flags = process.argv[2] === 'control-plane' ? [...NODE_FLAGS, ...CONTROL_PLANE_FLAGS] : NODE_FLAGS;

// Whoever gave flags of his own keeps them.
const started = process.execArgv.join(' ');
const beginsAgain = (started === '' || started === NODE_FLAGS.join(' ')) && started !== flags.join(' ');
// A process that replaces itself would lose its channel to a parent; Node's permission model and Windows do not let it.
const mayReplaceItself = process.channel === undefined && process.permission === undefined && process.platform !== 'win32';
if (beginsAgain && mayReplaceItself)
  process.execve?.(process.execPath, [process.execPath, ...flags, ...process.argv.slice(1)], process.env);

enableCompileCache();
await import('./meshwork.ts');
