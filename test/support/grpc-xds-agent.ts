/** A program: a proxyless gRPC client that does what its parent asks over IPC, one answer per question. */
import { createRequire } from 'node:module';
import * as grpc from '@grpc/grpc-js';

/** `calls` unary calls of one method, so many at once; `background` = until `stop`. */
export interface AgentQuestion {
  readonly id: number;
  readonly kind: 'calls' | 'start' | 'stop';
  readonly target: string;
  readonly path: string;
  readonly count?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly deadlineMs?: number;
  /** All at once; default one after the other. */
  readonly together?: boolean;
}

/** How often each answer came; a failed call counts as `error <code>: <details>`. */
export interface AgentAnswer {
  readonly id: number;
  readonly counts: Readonly<Record<string, number>>;
  /** In the order of the calls. */
  readonly sequence: readonly string[];
}

const BACKGROUND_PAUSE_MS = 5;

const { register } = createRequire(import.meta.url)('@grpc/grpc-js-xds') as { register: () => void };
register();

const same = (bytes: Buffer): Buffer => bytes;
const clients = new Map<string, grpc.Client>();
const running = new Map<string, { stopped: boolean; done: Promise<string[]> }>();

function clientOf(target: string): grpc.Client {
  let client = clients.get(target);
  if (client === undefined) clients.set(target, (client = new grpc.Client(target, grpc.credentials.createInsecure())));
  return client;
}

function call({ target, path, metadata = {}, deadlineMs = 20_000 }: AgentQuestion): Promise<string> {
  const sent = new grpc.Metadata();
  for (const [name, value] of Object.entries(metadata)) sent.set(name, value);
  return new Promise((resolve) => {
    clientOf(target).makeUnaryRequest(path, same, same, Buffer.from('x'), sent, { deadline: Date.now() + deadlineMs }, (error, reply) =>
      resolve(error === null ? String(reply) : `error ${error.code}: ${error.details}`),
    );
  });
}

async function answer(question: AgentQuestion): Promise<string[]> {
  const { kind, count = 1 } = question;
  const key = `${question.target} ${question.path}`;
  if (kind === 'start') {
    const state = { stopped: false, done: Promise.resolve<string[]>([]) };
    state.done = background(question, state);
    running.set(key, state);
    return [];
  }
  if (kind === 'stop') {
    const state = running.get(key)!;
    state.stopped = true;
    running.delete(key);
    return state.done;
  }
  if (question.together) return Promise.all(Array.from({ length: count }, () => call(question)));
  const sequence: string[] = [];
  for (let sent = 0; sent < count; sent++) sequence.push(await call(question));
  return sequence;
}

async function background(question: AgentQuestion, state: { readonly stopped: boolean }): Promise<string[]> {
  const sequence: string[] = [];
  while (!state.stopped) {
    sequence.push(await call(question));
    await new Promise((resolve) => setTimeout(resolve, BACKGROUND_PAUSE_MS));
  }
  return sequence;
}

process.on('message', (question: AgentQuestion) => {
  void answer(question).then((sequence) => {
    const counts: Record<string, number> = {};
    for (const who of sequence) counts[who] = (counts[who] ?? 0) + 1;
    process.send!({ id: question.id, counts, sequence } satisfies AgentAnswer);
  });
});
process.once('disconnect', () => process.exit(0));
process.send!({ id: 0, counts: {}, sequence: [] } satisfies AgentAnswer);
