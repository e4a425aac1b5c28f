/** Scripts for the rules of xDS on the client's side: responses and time as one-line steps, requests and updates as text. */
import { expect } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { ClientSession } from '../../xds/session/client.ts';
import type { ClientEvent, ClientUpdate } from '../../xds/session/client.ts';
import type { DiscoveryRequest, Mode, WireResource } from '../../xds/session/messages.ts';
import { testNode } from '../../xds/session/testing.ts';
import { shortName } from '../../xds/session/type-urls.ts';
import { playSteps, TYPES, resource } from './xds-script.ts';
import type { Type } from './xds-script.ts';

export type ClientStep =
  | readonly ['connect', Mode?]
  | readonly ['drop']
  | readonly ['subscribe', Type, ...string[]]
  /** Subscribes, connects, and is heard to ask for just that, with its node: how most scripts begin. */
  | readonly ['opened', Type, ...string[]]
  | readonly ['unsubscribe', Type, ...string[]]
  /** A response: its version and nonce are `nonce`; `a=1` is a resource, `-a` a removal, `a~1@9000` a heartbeat of version 1 with its time to live, `!EDS/a=1` one of another type, `?a|b` one without a body that has the alias b. */
  | readonly ['receive', Type, string, ...string[]]
  /** All requests that the client sends now: `CDS [a b] v=1 n=2 node error=…`, delta `CDS +a -b init(a=1) n=2 node error=…`. */
  | readonly ['sends', ...string[]]
  /** All updates since the last look: `CDS a=1 -b`, with `missing` or `expired` before the names. */
  | readonly ['updates', ...string[]]
  | readonly ['accept']
  /** Rejects names of the update that waits: `a: why`; `: why` rejects it whole. */
  | readonly ['reject', ...string[]]
  | readonly ['event', Partial<ClientEvent>]
  | readonly ['status', Type, Readonly<Record<string, string>>]
  | readonly ['wait', number];

export interface ClientRow {
  readonly rule: number;
  readonly behaviour: string;
  readonly mode: Mode;
  readonly steps: readonly ClientStep[];
}

export function playClient(row: ClientRow): void {
  const player = new ClientPlayer(row.mode);
  playSteps(row.steps, (step) => player.play(step));
}

class ClientPlayer {
  readonly #clock = new ManualClock();
  readonly #session: ClientSession;
  readonly #updates: string[] = [];
  readonly #events: ClientEvent[] = [];
  #waiting: ClientUpdate | undefined;

  constructor(mode: Mode) {
    this.#session = new ClientSession({
      mode,
      clock: this.#clock,
      node: testNode(),
      onUpdate: (update) => {
        this.#waiting = update;
        this.#updates.push(updateText(update));
      },
      onEvent: (event) => this.#events.push(event),
    });
  }

  play(step: ClientStep): void {
    switch (step[0]) {
      case 'connect':
        return this.#session.connected(step[1]);
      case 'drop':
        return this.#session.disconnected();
      case 'subscribe':
        return this.#session.subscribe(TYPES[step[1]], step.slice(2));
      case 'opened':
        return this.#opened(step[1], step.slice(2));
      case 'unsubscribe':
        return void this.#session.unsubscribe(TYPES[step[1]], step.slice(2));
      case 'receive':
        return this.#receive(step[1], step[2], step.slice(3));
      case 'sends':
        return expect(this.#drain()).toEqual(step.slice(1));
      case 'updates':
        return expect(this.#updates.splice(0)).toEqual(step.slice(1));
      case 'accept':
        return this.#settle([]);
      case 'reject':
        return this.#settle(
          step.slice(1).map((text) => ({ name: text.slice(0, text.indexOf(':')), message: text.slice(text.indexOf(':') + 1).trim() })),
        );
      case 'event':
        return expect(this.#events.at(-1)).toMatchObject(step[1]);
      case 'status': {
        const type = this.#session.status().find((entry) => entry.typeUrl === TYPES[step[1]]);
        return expect(Object.fromEntries((type?.resources ?? []).map(({ name, state }) => [name, state]))).toEqual(step[2]);
      }
      case 'wait':
        this.#clock.advance(step[1]);
    }
  }

  #opened(type: Type, names: readonly string[]): void {
    const { mode } = this.#session;
    this.#session.subscribe(TYPES[type], names);
    this.#session.connected();
    // The star alone is asked for by naming nothing.
    const asked = names.length === 1 && names[0] === '*' ? [] : names;
    const words = mode === 'sotw' ? [`[${asked.join(' ')}]`] : asked.map((name) => `+${name}`);
    expect(this.#drain()).toEqual([[type, ...words, 'node'].join(' ')]);
  }

  #settle(problems: { name: string; message: string }[]): void {
    const update = this.#waiting;
    if (update === undefined) throw new Error('no update waits');
    this.#waiting = undefined;
    this.#session.settle(update, problems);
  }

  #receive(type: Type, nonce: string, words: readonly string[]): void {
    const typeUrl = TYPES[type];
    const resources: WireResource[] = [];
    const removed: string[] = [];
    for (const word of words) {
      const heartbeat = /^(\w+)~(\w+)@(\d+)$/.exec(word);
      if (heartbeat !== null) resources.push({ name: heartbeat[1]!, version: heartbeat[2]!, typeUrl, ttlMs: Number(heartbeat[3]) });
      else if (word.startsWith('?')) {
        const [name, alias] = word.slice(1).split('|');
        resources.push({ name: name!, version: '', typeUrl, ...(alias === undefined ? {} : { aliases: [alias] }) });
      } else if (word.startsWith('-')) removed.push(word.slice(1));
      else if (word.startsWith('!')) resources.push(resource(word.slice(1)));
      else resources.push(resource(`${type}/${word}`));
    }
    const shared = { typeUrl, versionInfo: nonce, nonce, resources };
    if (this.#session.mode === 'delta') this.#session.receive({ mode: 'delta', ...shared, removed });
    else this.#session.receive({ mode: 'sotw', ...shared, wrapped: false });
  }

  #drain(): string[] {
    const lines: string[] = [];
    for (let request = this.#session.next(); request !== undefined; request = this.#session.next()) lines.push(requestText(request));
    return lines;
  }
}

function requestText(request: DiscoveryRequest): string {
  const words = [shortName(request.typeUrl)];
  if (request.mode === 'sotw') {
    words.push(`[${request.resourceNames.join(' ')}]`);
    if (request.versionInfo !== '') words.push(`v=${request.versionInfo}`);
  } else {
    words.push(...request.subscribe.map((name) => `+${name}`), ...request.unsubscribe.map((name) => `-${name}`));
    if (request.initialVersions.size > 0)
      words.push(`init(${[...request.initialVersions].map(([name, version]) => `${name}=${version}`).join(' ')})`);
  }
  if (request.responseNonce !== '') words.push(`n=${request.responseNonce}`);
  if (request.node !== undefined) words.push('node');
  if (request.error !== undefined) words.push(`error=${request.error.message}`);
  return words.join(' ');
}

function updateText(update: ClientUpdate): string {
  const words = [shortName(update.typeUrl)];
  if (update.cause !== 'response') words.push(update.cause);
  words.push(...update.upserts.map(({ name, bytes }) => `${name}=${content(bytes)}`), ...update.removals.map((name) => `-${name}`));
  return words.join(' ');
}

/** The content that `testResource` put into field 15. */
function content(bytes: Uint8Array): string {
  const nameBytes = bytes[1]!;
  return Buffer.from(bytes.subarray(2 + nameBytes + 2)).toString();
}
