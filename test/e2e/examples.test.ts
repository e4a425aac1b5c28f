/** The examples run, each with its one command. */
import { test, expect } from '@jest/globals';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { injectCompose } from '../../control-plane/inject/compose.ts';
import { VERSION } from '../../cli/version.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

function run(file: string): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [file], { cwd: ROOT, timeout: 120_000 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
      resolve({ code, output: stdout + (error === null ? '' : stderr) });
    });
  });
}

test('canary: the split follows the file and nothing fails', async () => {
  const { code, output } = await run('examples/canary/run.ts');

  expect({ code, output }).toEqual({
    code: 0,
    output: expect.stringMatching(/weights 90 : 10.*\n.*weights 50 : 50.*\n.*weights 0 : 100 {3}arrived v1 0,/),
  });
}, 130_000);

test('registration: the endpoint comes, stays and goes with its lease', async () => {
  const { code, output } = await run('examples/registration/run.ts');

  expect({ code, output }).toEqual({
    code: 0,
    output: expect.stringMatching(/greeter has 1 endpoint\n[^]*heartbeats keep it\n[^]*greeter has 0 endpoints/),
  });
}, 130_000);

test('compose: the meshed file is what the injector makes of the plain one', () => {
  const plain = readFileSync(`${ROOT}/examples/compose/compose.yaml`, 'utf8');
  const meshed = readFileSync(`${ROOT}/examples/compose/compose.mesh.yaml`, 'utf8');

  expect(
    injectCompose(plain, 'compose.yaml', { image: `meshwork:${VERSION}`, controlPlane: 'http://meshwork-control-plane:15080' }).text,
  ).toBe(meshed);
});
