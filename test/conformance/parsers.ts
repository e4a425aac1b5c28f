/** Other people's HTTP/1.1 parsers, asked what they read in a message: llhttp (node:http), h11, Go's net/http, nginx, HAProxy. */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { METHODS, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { listen, startUpstream, talk } from './harness.ts';

/** A request as a parser understood it. Fields are in lower case and sorted, without those that frame or end at a hop. */
export interface Understood {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly fields: readonly string[];
  readonly body: string;
  readonly trailers: readonly string[];
}

export interface Parser {
  readonly name: string;
  /** It reads trailers and throws them away; nothing can be said about them. */
  readonly dropsTrailers?: true;
  /** Is it a method and a form of target that it takes at all? Nothing can be said about others. */
  readonly takes?: (request: Understood) => boolean;
  /** It reads messages only to pass them on: what is cut off at the end says nothing. */
  readonly passesOn?: true;
  /** The whole requests in `message`, and whether it stopped at something it would not take. */
  parse(message: string): Promise<{ readonly requests: readonly Understood[]; readonly refused: boolean }>;
  stop(): Promise<void>;
}

/** A parser that may be on this machine. */
export interface Tool {
  /** What must be installed, for whoever reads why it was left out. */
  readonly needs: string;
  installed(): boolean;
  start(): Promise<Parser>;
}

const HOP = new Set(['host', 'connection', 'content-length', 'transfer-encoding', 'te', 'trailer', 'expect', 'x-seen-uri', 'x-seen-host']);

/** Fields in the form that is compared. */
export function comparable(pairs: readonly (readonly [string, string])[]): string[] {
  return pairs
    .filter(([name]) => !HOP.has(name.toLowerCase()))
    .map(([name, value]) => `${name.toLowerCase()}: ${value}`)
    .sort();
}

function pairsOf(raw: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let i = 0; i < raw.length; i += 2) pairs.push([raw[i]!, raw[i + 1]!]);
  return pairs;
}

function has(command: string, args: readonly string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** llhttp as Node ships it, strict. */
const startLlhttp = async (): Promise<Parser> => {
  let seen: Understood[] = [];
  const server = createServer({ joinDuplicateHeaders: false }, (request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString('latin1')));
    request.on('end', () => {
      const host = request.headers.host ?? '';
      const trailers = comparable(pairsOf(request.rawTrailers));
      seen.push({ method: request.method!, target: request.url!, host, fields: comparable(pairsOf(request.rawHeaders)), body, trailers });
      response.end();
    });
  });
  server.maxHeadersCount = 0;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const port = (server.address() as AddressInfo).port;
  return {
    name: 'llhttp',
    takes: ({ method }) => METHODS.includes(method),
    parse: async (message) => {
      seen = [];
      const { text } = await talk(port, [message], { end: true });
      return { requests: seen, refused: text.includes('HTTP/1.1 4') };
    },
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};

interface Parsed {
  readonly requests: readonly {
    readonly method: string;
    readonly target: string;
    readonly host?: string;
    readonly headers: readonly (readonly [string, string])[];
    readonly body: string;
    readonly trailers: readonly (readonly [string, string])[];
    readonly done: boolean;
  }[];
  readonly error: string | null;
}

/** A process that answers a line of JSON with a line of JSON. */
function lineParser(name: string, child: ChildProcess, cleanUp: () => void): Parser {
  const waiting: ((line: string) => void)[] = [];
  createInterface({ input: child.stdout! }).on('line', (line) => waiting.shift()?.(line));
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  return {
    name,
    parse: async (message) => {
      const line = await new Promise<string>((resolve) => {
        waiting.push(resolve);
        child.stdin!.write(`${JSON.stringify(message)}\n`);
      });
      const parsed = JSON.parse(line) as Parsed;
      const requests = parsed.requests
        .filter((request) => request.done)
        .map((request) => ({
          method: request.method,
          target: request.target,
          host: request.host ?? request.headers.find(([field]) => field.toLowerCase() === 'host')?.[1] ?? '',
          fields: comparable(request.headers),
          body: request.body,
          trailers: comparable(request.trailers),
        }));
      return { requests, refused: parsed.error !== null };
    },
    stop: async () => {
      child.stdin!.end();
      await exited;
      cleanUp();
    },
  };
}

const here = new URL('./parsers/', import.meta.url).pathname;

const startH11 = (): Promise<Parser> => {
  return Promise.resolve(
    lineParser('h11', spawn('python3', [join(here, 'h11-echo.py')], { stdio: ['pipe', 'pipe', 'inherit'] }), () => undefined),
  );
};

const startGo = (): Promise<Parser> => {
  const directory = mkdtempSync(join(tmpdir(), 'parsers-'));
  const binary = join(directory, 'parser');
  execFileSync('go', ['build', '-o', binary, '.'], { cwd: here, env: { ...process.env, GOFLAGS: '-mod=mod', GOTOOLCHAIN: 'local' } });
  return Promise.resolve(
    lineParser('go', spawn(binary, { stdio: ['pipe', 'pipe', 'inherit'] }), () => rmSync(directory, { recursive: true })),
  );
};

/** A free port that was free a moment ago. */
async function freePort(): Promise<number> {
  const listening = await listen(() => undefined);
  await listening.close();
  return listening.port;
}

/** A proxy in front of a recording upstream: what it passes on is what it understood. */
async function throughProxy(
  name: string,
  command: string,
  configure: (port: number, upstreamPort: number, directory: string) => { text: string; args: (file: string) => string[] },
): Promise<Parser> {
  const upstream = await startUpstream(() => 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), `${name}-`));
  const { text, args } = configure(port, upstream.port, directory);
  const file = join(directory, 'conf');
  writeFileSync(file, text);
  const child = spawn(command, args(file), { stdio: 'ignore' });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  for (let i = 0; i < 100; i++) {
    const { text: answer } = await talk(port, ['GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'], { withinMs: 200 });
    if (answer.startsWith('HTTP/1.1 200')) break;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  return {
    name,
    passesOn: true,
    ...(name === 'nginx'
      ? { dropsTrailers: true as const, takes: ({ method, target }: Understood) => /^[A-Z]+$/.test(method) && target !== '*' }
      : {}),
    parse: async (message) => {
      upstream.requests.length = 0;
      const { text: answers } = await talk(port, [message], { withinMs: 2_000 });
      const requests = upstream.requests.map(({ head, body }) => understood(head, body));
      return { requests, refused: /HTTP\/1\.1 [45]/.test(answers) };
    },
    stop: async () => {
      child.kill();
      await exited;
      await upstream.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Reads a canonical request as the harness cut it out: by its own few lines, not by the codec under test. */
export function understood(head: string, body: string): Understood {
  const [start, ...lines] = head.slice(0, -4).split('\r\n');
  const [method, target] = start!.split(' ');
  const pairs = lines.map((line): [string, string] => [line.slice(0, line.indexOf(':')), ows(line.slice(line.indexOf(':') + 1))]);
  const field = (name: string): string | undefined => pairs.find(([one]) => one.toLowerCase() === name)?.[1];
  const chunked = field('transfer-encoding') === 'chunked';
  const { content, trailers } = chunked ? dechunk(body) : { content: body, trailers: [] };
  return {
    method: method!,
    target: field('x-seen-uri') ?? target!,
    host: field('x-seen-host') ?? field('host') ?? '',
    fields: comparable(pairs),
    body: content,
    trailers,
  };
}

/** Without optional white space, which is space and tab and nothing else. */
const ows = (text: string): string => text.replace(/^[ \t]+|[ \t]+$/g, '');

function dechunk(body: string): { content: string; trailers: string[] } {
  let content = '';
  for (let at = 0; ;) {
    const eol = body.indexOf('\r\n', at);
    const size = Number.parseInt(body.slice(at, eol), 16);
    if (size === 0) {
      const lines = body
        .slice(eol + 2, -2)
        .split('\r\n')
        .filter((line) => line !== '');
      return {
        content,
        trailers: comparable(lines.map((line) => [line.slice(0, line.indexOf(':')), ows(line.slice(line.indexOf(':') + 1))])),
      };
    }
    content += body.slice(eol + 2, eol + 2 + size);
    at = eol + 4 + size;
  }
}

const startNginx = (): Promise<Parser> =>
  throughProxy('nginx', 'nginx', (port, upstreamPort, directory) => ({
    args: (file) => ['-c', file, '-e', '/dev/null'],
    text: `worker_processes 1; daemon off; master_process off; pid ${directory}/pid; error_log /dev/null;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path ${directory}; proxy_temp_path ${directory}; fastcgi_temp_path ${directory}; uwsgi_temp_path ${directory};
  scgi_temp_path ${directory}; underscores_in_headers on; ignore_invalid_headers off; large_client_header_buffers 4 64k; merge_slashes off;
  upstream recorder { server 127.0.0.1:${upstreamPort}; keepalive 4; }
  server { listen 127.0.0.1:${port};
    location / { proxy_pass http://recorder; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Seen-Uri $request_uri; proxy_set_header X-Seen-Host $http_host; } }
}`,
  }));

const startHaproxy = (): Promise<Parser> =>
  throughProxy('haproxy', 'haproxy', (port, upstreamPort) => ({
    args: (file) => ['-db', '-f', file],
    text: `defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 1s
frontend f
  bind 127.0.0.1:${port}
  default_backend b
backend b
  http-reuse always
  server s 127.0.0.1:${upstreamPort}
`,
  }));

export const PARSERS = {
  llhttp: { needs: 'nothing: Node has it', installed: () => true, start: startLlhttp },
  h11: { needs: 'python3 with the module h11', installed: () => has('python3', ['-c', 'import h11']), start: startH11 },
  go: { needs: 'the go tool', installed: () => has('go', ['version']), start: startGo },
  nginx: { needs: 'nginx', installed: () => has('nginx', ['-v']), start: startNginx },
  haproxy: { needs: 'haproxy', installed: () => has('haproxy', ['-v']), start: startHaproxy },
} as const satisfies Record<string, Tool>;
