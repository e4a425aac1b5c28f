import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import type { ServerInterceptor } from '@grpc/grpc-js';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { ServerHttp2Stream } from 'node:http2';
import { createIntake } from './grpc-intake.ts';
import { testResource } from './session/testing.ts';
import { CLUSTER_TYPE } from './session/type-urls.ts';
import { clock, closeAll, controlPlane, sidecar, until } from './stream-testing.ts';

jest.setTimeout(30_000);

/** What was written to each HTTP/2 stream, in order of their start. */
let written: Uint8Array[][] = [];

function watch(message: unknown): void {
  const { stream } = message as { readonly stream: ServerHttp2Stream };
  const chunks: Uint8Array[] = [];
  written.push(chunks);
  const write = stream.write.bind(stream) as (...args: unknown[]) => boolean;
  stream.write = (...args: unknown[]): boolean => {
    chunks.push(args[0] as Uint8Array);
    return write(...args);
  };
}

beforeEach(() => {
  written = [];
  subscribe('http2.server.stream.start', watch);
});
afterEach(async () => {
  unsubscribe('http2.server.stream.start', watch);
  await closeAll();
});

const LONG = 'x'.repeat(20_000);
/** As the control plane serves, and without any layer of grpc-js between. */
const LAYERS: readonly (readonly [string, () => ServerInterceptor[]])[] = [
  ['behind the intake', () => [createIntake({ clock }).interceptor]],
  ['with no interceptor', () => []],
];

for (const mode of ['delta', 'sotw'] as const) {
  for (const [layers, interceptors] of LAYERS) {
    test(`a long message goes to the HTTP/2 stream past grpc-js, the same bytes to every ${mode} client, ${layers}`, async () => {
      const plane = await controlPlane([testResource(CLUSTER_TYPE, 'long', LONG)], { interceptors: interceptors() });
      const clients = [sidecar(plane.target, mode), sidecar(plane.target, mode)];
      for (const { client } of clients) client.subscribe(CLUSTER_TYPE, ['*']);
      await until(() => clients.every(({ has }) => has(CLUSTER_TYPE, 'long')?.includes(LONG) === true), 'everybody has it');

      // grpc-js would have made a copy for each.
      const [one, other] = written.map((chunks) => chunks.find((chunk) => chunk.length >= LONG.length));
      expect(one).toBeDefined();
      expect(other?.buffer).toBe(one!.buffer);
      expect(other?.byteOffset).toBe(one!.byteOffset);
      expect(written).toHaveLength(2);

      plane.publish([testResource(CLUSTER_TYPE, 'long', LONG), testResource(CLUSTER_TYPE, 'short')]);
      await until(() => clients.every(({ has }) => has(CLUSTER_TYPE, 'short') !== undefined), 'a short message came after it');
      await until(() => plane.events.filter(({ kind }) => kind === 'acked').length >= 4, 'all of it was acknowledged');
    });
  }
}
