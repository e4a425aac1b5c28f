/** gRPC servers in this process and a proxyless client in another, for tests of the grpc flavour. */
import * as grpc from '@grpc/grpc-js';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { AgentAnswer, AgentQuestion } from './grpc-xds-agent.ts';

const AGENT = fileURLToPath(new URL('./grpc-xds-agent.ts', import.meta.url));
const same = (bytes: Buffer): Buffer => bytes;
const unary = {
  requestStream: false,
  responseStream: false,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
} as const;
const ECHO: grpc.ServiceDefinition = {
  Ping: { path: '/test.Echo/Ping', ...unary },
  Other: { path: '/test.Echo/Other', ...unary },
  Hold: { path: '/test.Echo/Hold', ...unary },
};

export interface EchoServer {
  readonly port: number;
  /** Calls of `Hold` that wait. */
  readonly held: number;
  release(): void;
  stop(): void;
}

/** Answers every call with its name; `Hold` only after `release`. Port 0 = a free one. */
export async function startEcho(name: string, wanted = 0): Promise<EchoServer> {
  const waiting = new Set<() => void>();
  const answer: grpc.handleUnaryCall<Buffer, Buffer> = (_call, reply) => reply(null, Buffer.from(name));
  const hold: grpc.handleUnaryCall<Buffer, Buffer> = (_call, reply) => void waiting.add(() => reply(null, Buffer.from(name)));
  const server = new grpc.Server();
  server.addService(ECHO, { Ping: answer, Other: answer, Hold: hold });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${wanted}`, grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return {
    port,
    get held() {
      return waiting.size;
    },
    release() {
      for (const answerOne of waiting) answerOne();
      waiting.clear();
    },
    stop: () => server.forceShutdown(),
  };
}

export interface Agent {
  ask(question: Omit<AgentQuestion, 'id'>): Promise<AgentAnswer>;
  stop(): void;
}

/** Where the clients say that they are. */
export const CLIENT_LOCALITY = { region: 'eu', zone: 'eu-1' };

/** The environment of a client whose control plane is at this port. */
function environment(xdsPort: number, nodeId: string): NodeJS.ProcessEnv {
  const bootstrap = {
    xds_servers: [{ server_uri: `127.0.0.1:${xdsPort}`, channel_creds: [{ type: 'insecure' }] }],
    node: { id: nodeId, locality: CLIENT_LOCALITY },
  };
  return { ...process.env, GRPC_XDS_BOOTSTRAP_CONFIG: JSON.stringify(bootstrap) };
}

/** A client in Node, spoken to over IPC. */
export function startAgent(xdsPort: number, nodeId: string): Promise<Agent> {
  const child = spawn(process.execPath, [AGENT], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env: environment(xdsPort, nodeId) });
  const answers = (take: (answer: AgentAnswer) => void): void => void child.on('message', take);
  return agentOf(child, (question) => void child.send(question), answers);
}

/** A client in Go, spoken to in lines of JSON. */
export function startGoAgent(program: string, xdsPort: number, nodeId: string): Promise<Agent> {
  const child = spawn(program, [], { stdio: ['pipe', 'pipe', 'inherit'], env: environment(xdsPort, nodeId) });
  const answers = (take: (answer: AgentAnswer) => void): void =>
    void createInterface({ input: child.stdout }).on('line', (line) => take(JSON.parse(line) as AgentAnswer));
  return agentOf(child, (question) => void child.stdin.write(`${JSON.stringify(question)}\n`), answers);
}

async function agentOf(
  child: ChildProcess,
  send: (question: AgentQuestion) => void,
  answers: (take: (answer: AgentAnswer) => void) => void,
): Promise<Agent> {
  const waiting = new Map<number, { resolve: (answer: AgentAnswer) => void; reject: (error: Error) => void }>();
  const wait = (id: number): Promise<AgentAnswer> => new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
  const kill = (): void => void child.kill('SIGKILL');
  process.on('exit', kill);
  answers((answer) => {
    waiting.get(answer.id)?.resolve(answer);
    waiting.delete(answer.id);
  });
  child.on('exit', (code, signal) => {
    process.off('exit', kill);
    for (const { reject } of waiting.values()) reject(new Error(`the gRPC client ended with ${signal ?? String(code)}`));
  });
  let last = 0;
  await wait(last);
  return {
    ask(question) {
      const id = ++last;
      const answered = wait(id);
      send({ ...question, id });
      return answered;
    },
    stop: kill,
  };
}
