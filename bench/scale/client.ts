/** What the scale bench asks of the control plane over HTTP: writes, waits for acknowledgements, metrics. */
import { Agent, request } from 'undici';
import type { ControlPlaneProcess } from './processes.ts';

export interface Metrics {
  /** Longest turn of the event loop since the last time of asking. */
  readonly loopDelayMsMax: number;
  readonly proxies: number;
}

export class ApiClient {
  readonly #agent = new Agent({ connections: 32, pipelining: 1, headersTimeout: 120_000, bodyTimeout: 120_000 });
  readonly #api: string;
  readonly #metrics: string;
  #loopDelayMsMax = 0;

  constructor(controlPlane: ControlPlaneProcess) {
    this.#api = controlPlane.api;
    this.#metrics = controlPlane.metrics;
  }

  /** Creates many resources. Rejects with the answer when it is no success. */
  async create(documents: readonly object[]): Promise<void> {
    await this.#send('POST', '/api/v1/resources', documents.map((document) => JSON.stringify(document)).join('\n---\n'));
  }

  /** Replaces a resource; answers the change's id. */
  async put(path: string, document: object): Promise<string> {
    const answer = (await this.#send('PUT', path, JSON.stringify(document))) as { changeId: string };
    return answer.changeId;
  }

  /** Resolves when every connected proxy has acknowledged the change; answers how many it concerned. Rejects after a minute. */
  async acked(changeId: string): Promise<number> {
    const view = (await this.#send('GET', `/api/v1/changes/${changeId}?wait=60s`)) as {
      done: boolean;
      proxies: readonly { readonly state: string; readonly types: readonly string[] }[];
    };
    const missing = view.proxies.filter((proxy) => proxy.state !== 'acked').length;
    if (!view.done || missing > 0) throw new Error(`the change ${changeId} is not acknowledged by ${missing} proxies after a minute`);
    return view.proxies.filter((proxy) => proxy.types.length > 0).length;
  }

  /** Proxies that have acknowledged everything. */
  async settled(): Promise<number> {
    const { proxies } = (await this.#send('GET', '/api/v1/proxies')) as {
      proxies: readonly { readonly connected: boolean; readonly state: string }[];
    };
    return proxies.filter((proxy) => proxy.connected && proxy.state === 'acked').length;
  }

  async metrics(): Promise<Metrics> {
    const { body } = await request(this.#metrics, { dispatcher: this.#agent });
    const text = await body.text();
    const value = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
    const loopDelayMsMax = value('nodejs_eventloop_lag_max_seconds') * 1_000;
    this.#loopDelayMsMax = Math.max(this.#loopDelayMsMax, loopDelayMsMax);
    return { loopDelayMsMax, proxies: value('pilot_xds') };
  }

  /** Longest turn of the event loop since this was asked for the last time, whoever asked for metrics in between. */
  async loopDelayMsMax(): Promise<number> {
    await this.metrics();
    const longestMs = this.#loopDelayMsMax;
    this.#loopDelayMsMax = 0;
    return Math.round(longestMs);
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(method: 'GET' | 'POST' | 'PUT', path: string, body?: string): Promise<unknown> {
    const headers = body === undefined ? {} : { 'content-type': 'application/yaml', 'if-match': '*' };
    const response = await request(`${this.#api}${path}`, {
      method,
      headers,
      dispatcher: this.#agent,
      ...(body === undefined ? {} : { body }),
    });
    const text = await response.body.text();
    if (response.statusCode >= 300) throw new Error(`${method} ${path}: ${response.statusCode} ${text.slice(0, 500)}`);
    return JSON.parse(text);
  }
}
