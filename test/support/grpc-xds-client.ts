/** A program: two gRPC servers, and a proxyless client that calls a target many times; prints who answered, by method, as one line of JSON. */
import { createRequire } from 'node:module';
import * as grpc from '@grpc/grpc-js';

/** How often each method is called. */
const CALLS = 200;
const CALL_MS_MAX = 20_000;

const [target = '', ...ports] = process.argv.slice(2);
const { register } = createRequire(import.meta.url)('@grpc/grpc-js-xds') as { register: () => void };
register();

const same = (bytes: Buffer): Buffer => bytes;
const unary = {
  requestStream: false,
  responseStream: false,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
} as const;
const service: grpc.ServiceDefinition = { Ping: { path: '/test.Echo/Ping', ...unary }, Only2: { path: '/test.Echo/Only2', ...unary } };

for (const [index, port] of ports.entries()) {
  const answer: grpc.handleUnaryCall<Buffer, Buffer> = (_call, reply) => reply(null, Buffer.from(`v${index + 1}`));
  const server = new grpc.Server();
  server.addService(service, { Ping: answer, Only2: answer });
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => (error === null ? resolve() : reject(error)));
  });
}

const client = new grpc.Client(target, grpc.credentials.createInsecure());
const call = (path: string): Promise<string> =>
  new Promise((resolve) => {
    client.makeUnaryRequest(path, same, same, Buffer.from('x'), { deadline: Date.now() + CALL_MS_MAX }, (error, reply) =>
      resolve(error === null ? String(reply) : `error ${error.code}: ${error.details}`),
    );
  });
const answers: Record<string, Record<string, number>> = {};
for (const [name, { path }] of Object.entries(service)) {
  const counts: Record<string, number> = {};
  for (let count = 0; count < CALLS; count++) {
    const who = await call(path);
    counts[who] = (counts[who] ?? 0) + 1;
    if (who.startsWith('error')) break;
  }
  answers[name] = counts;
}
process.stdout.write(`${JSON.stringify(answers)}\n`, () => process.exit(0));
