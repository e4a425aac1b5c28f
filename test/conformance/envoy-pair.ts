/** The same Envoy file run by our proxy and by a real Envoy, each with applications and ports of its own, and what is compared between them. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createTlsServer, request as tlsRequest } from 'node:https';
import type { ServerOptions } from 'node:https';
import { createServer as createTcpServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { testCa, testLeaf } from '../../certs/testing.ts';
import type { TestCa } from '../../certs/testing.ts';
import { freePorts } from '../../cli/ports.ts';

const FILES = fileURLToPath(new URL('envoy-files/', import.meta.url));
const MESHWORK = fileURLToPath(new URL('../../cli/meshwork.ts', import.meta.url));
const START_MS = 60_000;

/** `ENVOY` names the program; else it is looked for on PATH. */
export function findEnvoy(): string | undefined {
  const named = process.env['ENVOY'];
  const candidates = named === undefined ? (process.env['PATH'] ?? '').split(delimiter).map((part) => join(part, 'envoy')) : [named];
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Answers a request of an application; `hit` counts from 1 for each application. */
export type Behaviour = (request: IncomingMessage, response: ServerResponse, hit: number) => void;

export interface Application {
  readonly behaviour?: Behaviour;
  /** TLS of the application, a client certificate asked for. */
  readonly tls?: boolean;
  /** Echoes bytes instead of speaking HTTP. */
  readonly tcp?: boolean;
}

export interface Side {
  readonly name: 'meshwork' | 'envoy';
  readonly directory: string;
  /** Requests that an application got so far. */
  hits(port: number): number;
  /** The real port for one that stands in the file. */
  port(inFile: number): number;
  ask(port: number, ask?: Ask): Promise<Seen>;
  admin(path: string, method?: string): Promise<{ readonly status: number; readonly text: string }>;
  /** Moves a file of envoy-files into the directory under another name, with ports and paths replaced. */
  moveIn(file: string, as: string): void;
  stats(): Promise<Map<string, number>>;
  stop(): Promise<void>;
}

export interface Ask {
  readonly method?: string;
  readonly path?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Speaks TLS with this server name. */
  readonly sni?: string;
  readonly clientCertificate?: 'client' | 'stranger';
}

/** One answer without what may differ: see UNCOMPARED_HEADERS. */
export interface Seen {
  readonly status: number | 'closed';
  readonly headers: Readonly<Record<string, string | string[]>>;
  /** JSON of our applications' echo, else text. */
  readonly body: unknown;
  /** Common name of the peer's certificate. */
  readonly peer?: string;
}

/** Headers that differ from one request to the next, or that time makes. */
export const UNCOMPARED_HEADERS: ReadonlySet<string> = new Set(['date', 'x-envoy-upstream-service-time', 'x-request-id', 'last-modified']);

export interface Setup {
  readonly file: string;
  readonly applications?: Readonly<Record<number, Application>>;
  /** Runs before the proxy starts, with its directory. */
  readonly prepare?: (side: Pick<Side, 'directory' | 'moveIn' | 'port'>) => void | Promise<void>;
  /** Flags beside `-c`. */
  readonly args?: readonly string[];
  /** Ports in the file that the test serves itself. */
  readonly served?: Readonly<Record<number, number>>;
}

const open = new Set<() => Promise<void> | void>();

/** For `afterEach`. */
export async function closeAll(): Promise<void> {
  for (const close of [...open].reverse()) await close();
  open.clear();
}

export function onClose(close: () => Promise<void> | void): void {
  open.add(close);
}

export async function startSide(name: Side['name'], program: string, setup: Setup): Promise<Side> {
  const directory = mkdtempSync(join(tmpdir(), `meshwork-pair-${name}-`));
  open.add(() => rmSync(directory, { recursive: true, force: true }));
  writeCertificates(directory);
  const ports = new Map<number, number>(Object.entries(setup.served ?? {}).map(([inFile, real]) => [Number(inFile), real]));
  const hits = new Map<number, number>();
  for (const [inFile, application] of Object.entries(setup.applications ?? {}))
    ports.set(Number(inFile), await startApplication(Number(inFile), application, directory, hits));
  const text = readFileSync(join(FILES, setup.file), 'utf8');
  const listening = [10_000, 10_001, 10_002, 10_999, 9_901].filter((port) => !ports.has(port));
  (await freePorts(listening.length)).forEach((real, i) => ports.set(listening[i]!, real));
  const port = (inFile: number): number => {
    const real = ports.get(inFile);
    if (real === undefined) throw new Error(`${setup.file}: the test gives no port for ${inFile}`);
    return real;
  };
  const replaced = (from: string): string =>
    from
      .replaceAll(/("?port_value"?: )(\d+)/g, (_whole, field: string, inFile: string) => `${field}${port(Number(inFile))}`)
      .replaceAll('/etc/mesh', directory);
  const moveIn = (file: string, as: string): void => {
    const target = join(directory, as);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(`${target}.tmp`, replaced(readFileSync(join(FILES, file), 'utf8')));
    renameSync(`${target}.tmp`, target);
  };
  await setup.prepare?.({ directory, moveIn, port });
  const config = join(directory, setup.file.endsWith('.json') ? 'config.json' : 'config.yaml');
  writeFileSync(config, replaced(text));
  const child = startProgram(name, program, config, setup.args);
  const ask = (inFile: number, options: Ask = {}): Promise<Seen> => askOnce(port(inFile), options, directory);
  const admin: Side['admin'] = async (path, method = 'GET') => {
    const seen = await askOnce(port(9_901), { path, method, host: '127.0.0.1' }, directory, false);
    return { status: seen.status === 'closed' ? 0 : seen.status, text: String(seen.body) };
  };
  await until(`${name} is ready with ${setup.file}`, START_MS, async () => {
    if (child.process.exitCode !== null) throw new Error(`${name} ended with ${child.process.exitCode}:\n${child.output()}`);
    return (await admin('/ready')).status === 200;
  });
  return {
    name,
    directory,
    hits: (inFile) => hits.get(inFile) ?? 0,
    port,
    ask,
    admin,
    moveIn,
    stats: async () => {
      const { text: lines } = await admin('/stats');
      return new Map(
        lines.split('\n').flatMap((line) => {
          const match = /^(.*): (\d+)$/.exec(line);
          return match === null ? [] : [[match[1]!, Number(match[2])] as const];
        }),
      );
    },
    stop: child.stop,
  };
}

interface Program {
  readonly process: ChildProcess;
  readonly output: () => string;
  readonly stop: () => Promise<void>;
}

function startProgram(name: Side['name'], program: string, config: string, args: readonly string[] = []): Program {
  const words = name === 'envoy' ? ['--disable-hot-restart', '--concurrency', '1', '-l', 'warning'] : ['-l', 'warning'];
  const [command, before] = name === 'envoy' ? [program, []] : [process.execPath, [MESHWORK, 'proxy']];
  const child = spawn(command, [...before, '-c', config, ...words, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-8_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.on('error', (error) => (output += error.message));
  const ended = new Promise<void>((resolve) => void child.once('close', () => resolve()));
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await ended;
  };
  open.add(stop);
  return { process: child, output: () => output, stop };
}

/** Runs a file to its end, for files that must be refused: exit code and what was printed. */
export async function refusal(
  name: Side['name'],
  program: string,
  text: string,
  args: readonly string[] = [],
): Promise<{ readonly code: number | null; readonly output: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-refused-'));
  open.add(() => rmSync(directory, { recursive: true, force: true }));
  const config = join(directory, 'config.yaml');
  writeFileSync(config, text);
  const child = startProgram(name, program, config, args);
  const code = await new Promise<number | null>((resolve) => void child.process.once('close', resolve));
  return { code, output: child.output() };
}

async function startApplication(inFile: number, application: Application, directory: string, hits: Map<number, number>): Promise<number> {
  const sockets = new Set<Socket>();
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const hit = (hits.get(inFile) ?? 0) + 1;
    hits.set(inFile, hit);
    (application.behaviour ?? echo(inFile))(request, response, hit);
  };
  let server: Server;
  if (application.tcp === true)
    server = createTcpServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => void socket.write(chunk));
      socket.on('end', () => void socket.end());
    });
  else if (application.tls === true) server = createTlsServer(serverTls(directory), onRequest);
  else server = createServer(onRequest);
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  open.add(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function serverTls(directory: string): ServerOptions {
  const read = (file: string): Buffer => readFileSync(join(directory, file));
  return { cert: read('server.pem'), key: read('server.key'), ca: read('ca.pem'), requestCert: true, rejectUnauthorized: false };
}

/** Says what it got, in JSON, with its number; headers that differ from run to run are left out. */
export function echo(inFile: number): Behaviour {
  return (request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      const headers = comparable(request.headersDistinct as Record<string, string[]>);
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ application: inFile, method: request.method, url: request.url, headers, body }));
    });
  };
}

function comparable(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string | string[]> {
  const kept: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(headers)) if (value !== undefined && !UNCOMPARED_HEADERS.has(name)) kept[name] = value;
  return kept;
}

async function askOnce(port: number, ask: Ask, directory: string, parse = true): Promise<Seen> {
  const tls = ask.sni !== undefined;
  const identity =
    ask.clientCertificate === undefined
      ? {}
      : {
          cert: readFileSync(join(directory, `${ask.clientCertificate}.pem`)),
          key: readFileSync(join(directory, `${ask.clientCertificate}.key`)),
        };
  return new Promise((resolve) => {
    const options = {
      host: '127.0.0.1',
      port,
      path: ask.path ?? '/',
      method: ask.method ?? 'GET',
      agent: false,
      headers: { host: ask.host ?? 'any.example', connection: 'close', ...ask.headers },
      ...(tls ? { servername: ask.sni!, rejectUnauthorized: false, ...identity } : {}),
    };
    const request = (tls ? tlsRequest : httpRequest)(options, (response) => {
      let peer: string | undefined;
      if (tls)
        peer = (response.socket as unknown as { getPeerCertificate(): { subject?: { CN?: string } } }).getPeerCertificate().subject?.CN;
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString()));
      response.on('error', () => resolve({ status: 'closed', headers: {}, body }));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: comparable(response.headersDistinct),
          body: parse && response.headers['content-type'] === 'application/json' && body !== '' ? JSON.parse(body) : body,
          ...(peer === undefined ? {} : { peer }),
        }),
      );
    });
    request.on('error', () => resolve({ status: 'closed', headers: {}, body: '' }));
    request.setTimeout(20_000, () => void request.destroy());
    request.end(ask.body);
  });
}

let certificates: ReadonlyMap<string, string> | undefined;

/** ca, other-ca, server (server.example), renewed (the same, new), client (a SPIFFE id), stranger (signed by other-ca). */
function writeCertificates(directory: string): void {
  certificates ??= makeCertificates(testCa(Date.now(), 'mesh'), testCa(Date.now(), 'other'));
  for (const [file, text] of certificates) writeFileSync(join(directory, file), text);
}

function makeCertificates(ca: TestCa, other: TestCa): ReadonlyMap<string, string> {
  const nowMs = Date.now();
  const files = new Map([
    ['ca.pem', ca.pem],
    ['other-ca.pem', other.pem],
  ]);
  const dns = (name: string, cn: string): Parameters<typeof testLeaf>[3] => ({
    subject: { CN: cn },
    sans: [{ type: 'DNS', bytes: Buffer.from(name) }],
  });
  const leaves = {
    server: testLeaf(ca, nowMs, [], dns('server.example', 'server')),
    renewed: testLeaf(ca, nowMs, [], dns('server.example', 'renewed')),
    client: testLeaf(ca, nowMs, ['spiffe://mesh.example/ns/default/sa/client'], { subject: { CN: 'client' } }),
    stranger: testLeaf(other, nowMs, ['spiffe://mesh.example/ns/default/sa/client'], { subject: { CN: 'stranger' } }),
  };
  for (const [name, leaf] of Object.entries(leaves)) {
    files.set(`${name}.pem`, leaf.pem);
    files.set(`${name}.key`, leaf.keyPem);
  }
  return files;
}

export async function until(what: string, timeoutMs: number, test: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await test())) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
