/** Proxyless clients of grpc-go under our control plane; the client is built here, where Go is at hand. */
import { test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { startGoAgent } from '../support/grpc-peers.ts';
import { proxylessSuite } from '../support/grpc-suite.ts';

const SOURCE = fileURLToPath(new URL('./grpc-go', import.meta.url));
const PROGRAM = fileURLToPath(new URL('../../build/grpc-go-client', import.meta.url));
const BUILD_MS_MAX = 600_000;

/** Why there is no client; undefined when there is one. The first build compiles grpc-go, later ones take a second. */
function build(): string | undefined {
  const made = spawnSync('go', ['build', '-o', PROGRAM, '.'], { cwd: SOURCE, encoding: 'utf8', timeout: BUILD_MS_MAX });
  if (made.error !== undefined) return `go: ${made.error.message}`;
  return made.status === 0 ? undefined : `go build: ${made.stderr.trim().split('\n').at(-1) ?? 'failed'}`;
}

const missing = build();
// Its selector of clusters may be ahead of its balancer for a moment when a route comes back to a cluster that it has just let go.
const OWN_RACE = /unknown cluster selected for RPC/;
if (missing === undefined) proxylessSuite((xdsPort, nodeId) => startGoAgent(PROGRAM, xdsPort, nodeId), OWN_RACE);
else test.skip(`grpc-go (skipped: ${missing})`, () => undefined);
