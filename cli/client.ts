/** The control plane's API as commands use it: JSON over undici, problems as sentences, an exit code of their own when nobody is there. */
import { Agent, request } from 'undici';
import { CommandError, EXIT } from './exit.ts';

export const DEFAULT_API = 'http://127.0.0.1:15080';

interface ProblemDetails {
  readonly title?: string;
  readonly detail?: string;
  readonly errors?: readonly {
    readonly field?: string;
    readonly message?: string;
    readonly file?: string;
    readonly line?: number;
    readonly column?: number;
  }[];
}

export interface ApiAnswer<T> {
  readonly status: number;
  readonly etag: string | undefined;
  readonly body: T;
}

export interface ApiRequest {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly body?: unknown;
  /** Sent as it is, with this content type; instead of `body`. */
  readonly text?: { readonly type: string; readonly content: string };
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

/** A client of one control plane. `close` ends its connections. */
export interface ApiClient {
  readonly baseUrl: string;
  call<T>(path: string, options?: ApiRequest): Promise<ApiAnswer<T>>;
  close(): Promise<void>;
}

/** The API answered with an error. `status` is its HTTP status. */
export class ApiError extends CommandError {
  readonly status: number;
  constructor(message: string, status: number) {
    super(message, EXIT.problems);
    this.name = 'ApiError';
    this.status = status;
  }
}

/** Takes a URL, or `host:port`. Calls throw `ApiError` for 4xx and 5xx, `CommandError` with code 3 when the control plane is not reachable. */
export function createApiClient(address: string = DEFAULT_API): ApiClient {
  const baseUrl = (/^https?:\/\//.test(address) ? address : `http://${address}`).replace(/\/$/, '');
  const agent = new Agent({ connections: 16, keepAliveTimeout: 3_000 });
  const call = async <T>(path: string, options: ApiRequest = {}): Promise<ApiAnswer<T>> => {
    const headers: Record<string, string> = { accept: 'application/json', ...options.headers };
    let body: string | null = null;
    if (options.text !== undefined) {
      headers['content-type'] = options.text.type;
      body = options.text.content;
    } else if (options.body !== undefined) {
      headers['content-type'] = 'application/json';
      body = JSON.stringify(options.body);
    }
    const timeoutMs = options.timeoutMs ?? 30_000;
    let answer;
    let text: string;
    try {
      answer = await request(baseUrl + path, {
        method: options.method ?? 'GET',
        headers,
        body,
        dispatcher: agent,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      });
      text = await answer.body.text();
    } catch (error) {
      throw new CommandError(`the control plane at ${baseUrl} is not reachable: ${reason(error)}`, EXIT.unreachable);
    }
    if (answer.statusCode >= 400) throw new ApiError(describeProblem(text, answer.statusCode), answer.statusCode);
    const etag = answer.headers['etag'];
    return {
      status: answer.statusCode,
      etag: typeof etag === 'string' ? etag : undefined,
      body: (text === '' ? undefined : parseBody(text, answer.headers['content-type'])) as T,
    };
  };
  return { baseUrl, call, close: () => agent.close() };
}

function parseBody(text: string, type: string | string[] | undefined): unknown {
  return String(type).includes('json') ? JSON.parse(text) : text;
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message !== '' ? error.message : ((error as NodeJS.ErrnoException).code ?? error.name);
}

/** Problem details (RFC 9457) as lines: the sentence, then one line per error with its place. */
function describeProblem(text: string, status: number): string {
  let problem: ProblemDetails;
  try {
    problem = JSON.parse(text) as ProblemDetails;
  } catch {
    return `the control plane answered ${status}: ${text.slice(0, 300)}`;
  }
  const lines = [problem.detail ?? problem.title ?? `the control plane answered ${status}`];
  for (const error of problem.errors ?? []) {
    const place = [error.file, error.line, error.column].filter((part) => part !== undefined).join(':');
    lines.push(`  ${[place, error.field].filter((part) => part !== undefined && part !== '').join(' ')}: ${error.message ?? ''}`);
  }
  return lines.join('\n');
}
