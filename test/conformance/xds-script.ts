/** Scripts for the rules of xDS: requests, publishes and time as one-line steps against a server session, responses as text. */
import { describe, expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import type { DiscoveryResponse, EncodedResource, Mode, NodeInfo } from '../../xds/session/messages.ts';
import { StreamError } from '../../xds/session/messages.ts';
import { ServerSession } from '../../xds/session/server.ts';
import type { ServerEvent } from '../../xds/session/server.ts';
import { testNode, testResource, testSet } from '../../xds/session/testing.ts';
import {
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  LISTENER_TYPE,
  ROUTE_TYPE,
  SECRET_TYPE,
  VIRTUAL_HOST_TYPE,
  shortName,
} from '../../xds/session/type-urls.ts';

export const TYPES = {
  CDS: CLUSTER_TYPE,
  EDS: ENDPOINT_TYPE,
  LDS: LISTENER_TYPE,
  RDS: ROUTE_TYPE,
  VHDS: VIRTUAL_HOST_TYPE,
  SDS: SECRET_TYPE,
} as const;
export type Type = keyof typeof TYPES;

/** What a request says beside its type. Left out: no names, no error, the node on the first request of the stream only. */
export interface Ask {
  readonly names?: readonly string[];
  readonly unsubscribe?: readonly string[];
  readonly initial?: Readonly<Record<string, string>>;
  /** `last` (default for all but the first request of a type in state-of-the-world mode) = nonce of the last response of the type. */
  readonly nonce?: string;
  readonly version?: string;
  readonly error?: string;
  readonly node?: NodeInfo | 'none';
}

export type ServerStep =
  /** `CDS/a=1`: cluster a with content 1. `CDS/a=1@9000` has a time to live of 9 s; `CDS/a=1|x` the alias x. */
  | readonly ['publish', ...string[]]
  | readonly ['ask', Type, Ask?]
  | readonly ['refused', Type | '', Ask, RegExp]
  | readonly ['ack', Type]
  | readonly ['nack', Type, string]
  /** All that the session sends now, in order: `CDS a=1 b=1`, in delta mode removals as `-b`, heartbeats as `a~`, a virtual host that does not exist as `a?`. */
  | readonly ['gets', ...string[]]
  | readonly ['event', Partial<ServerEvent>]
  /** The server's view of the type, in CSDS's words, with the error after it where there is one. */
  | readonly ['state', Type, string]
  | readonly ['wait', number];

export interface ServerRow {
  readonly rule: number;
  readonly behaviour: string;
  readonly mode: Mode;
  readonly method?: Type;
  readonly features?: readonly string[];
  readonly steps: readonly ServerStep[];
}

/** Plays the steps in order; fails at the first one that does not hold, naming it. */
export function playSteps<Step>(steps: readonly Step[], play: (step: Step) => void): void {
  steps.forEach((step, index) => {
    try {
      play(step);
    } catch (error) {
      throw new Error(`step ${index + 1} ${JSON.stringify(step)}: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  });
}

export function playServer(row: ServerRow): void {
  const player = new ServerPlayer(row);
  playSteps(row.steps, (step) => player.play(step));
}

/** Declares a table of rows as tests that are called by rule, mode and behaviour. */
export function declareRules<Row extends { readonly rule: number; readonly mode: Mode; readonly behaviour: string }>(
  who: string,
  rows: readonly Row[],
  play: (row: Row) => void,
): void {
  describe(who, () => {
    for (const row of rows) test(`rule ${row.rule}, ${row.mode}: ${row.behaviour}`, () => play(row));
  });
}

class ServerPlayer {
  readonly #mode: Mode;
  readonly #node: NodeInfo;
  readonly #clock = new ManualClock();
  readonly #events: ServerEvent[] = [];
  readonly #session: ServerSession;
  readonly #nonces = new Map<string, string>();
  readonly #versions = new Map<string, string>();
  readonly #names = new Map<string, readonly string[]>();
  #nodeSent = false;

  constructor(row: ServerRow) {
    this.#mode = row.mode;
    this.#node = testNode({ clientFeatures: row.features ?? [] });
    this.#session = new ServerSession({
      mode: row.mode,
      clock: this.#clock,
      ...(row.method === undefined ? {} : { typeUrl: TYPES[row.method] }),
      onEvent: (event) => this.#events.push(event),
      typesMax: 6,
      namesMax: 10,
    });
  }

  play(step: ServerStep): void {
    switch (step[0]) {
      case 'publish':
        return this.#session.publish(testSet(step.slice(1).map(resource)));
      case 'ask':
        return this.#ask(step[1], step[2] ?? {});
      case 'ack':
        return this.#ask(step[1], {
          names: this.#kept(step[1]),
          nonce: this.#nonce(step[1]),
          version: this.#versions.get(TYPES[step[1]]) ?? '',
        });
      case 'nack':
        return this.#ask(step[1], { names: this.#kept(step[1]), nonce: this.#nonce(step[1]), error: step[2] });
      case 'gets':
        return expect(this.#drain()).toEqual(step.slice(1));
      case 'event':
        return expect(this.#events.at(-1)).toMatchObject(step[1]);
      case 'state': {
        const type = this.#session.status().find(({ typeUrl }) => typeUrl === TYPES[step[1]]);
        return expect([type?.state, type?.error].join(' ').trim()).toBe(step[2]);
      }
      case 'wait':
        return this.#clock.advance(step[1]);
      case 'refused': {
        const [, type, ask, pattern] = step;
        expect(() => this.#ask(type, ask)).toThrow(pattern);
        expect(() => this.#ask(type, ask)).toThrow(StreamError);
      }
    }
  }

  #ask(type: Type | '', ask: Ask): void {
    const typeUrl = type === '' ? '' : TYPES[type];
    const node = ask.node === 'none' ? {} : { node: ask.node ?? (this.#nodeSent ? undefined : this.#node) };
    if (ask.node === undefined) this.#nodeSent = true;
    const shared = {
      typeUrl,
      ...(node.node === undefined ? {} : { node: node.node }),
      ...(ask.error === undefined ? {} : { error: { code: 3, message: ask.error } }),
    };
    if (this.#mode === 'sotw') {
      const responseNonce = ask.nonce ?? this.#nonces.get(typeUrl) ?? '';
      this.#names.set(typeUrl, ask.names ?? []);
      this.#session.receive({ mode: 'sotw', ...shared, versionInfo: ask.version ?? '', resourceNames: ask.names ?? [], responseNonce });
      return;
    }
    this.#session.receive({
      mode: 'delta',
      ...shared,
      subscribe: ask.names ?? [],
      unsubscribe: ask.unsubscribe ?? [],
      initialVersions: new Map(Object.entries(ask.initial ?? {})),
      responseNonce: ask.nonce ?? '',
    });
  }

  /** A state-of-the-world answer repeats the subscription; a delta answer does not (rule 13). */
  #kept(type: Type): readonly string[] {
    return this.#mode === 'sotw' ? (this.#names.get(TYPES[type]) ?? []) : [];
  }

  #nonce(type: Type): string {
    const nonce = this.#nonces.get(TYPES[type]);
    if (nonce === undefined) throw new Error(`nothing of ${type} was received`);
    return nonce;
  }

  #drain(): string[] {
    const lines: string[] = [];
    for (let response = this.#session.next(); response !== undefined; response = this.#session.next()) {
      expect(response.nonce).not.toBe('');
      expect([...this.#nonces.values()]).not.toContain(response.nonce);
      this.#nonces.set(response.typeUrl, response.nonce);
      this.#versions.set(response.typeUrl, response.versionInfo);
      lines.push(responseText(response));
    }
    return lines;
  }
}

function responseText(response: DiscoveryResponse): string {
  const words = response.resources.map(({ name, version, bytes }) =>
    bytes === undefined ? `${name}${response.typeUrl === VIRTUAL_HOST_TYPE ? '?' : '~'}` : `${name}=${version}`,
  );
  if (response.mode === 'delta') words.push(...response.removed.map((name) => `-${name}`));
  if (response.mode === 'sotw' && response.wrapped) words.unshift('(wrapped)');
  return [shortName(response.typeUrl), ...words].join(' ');
}

/** `CDS/a=1@9000|x` as a resource. */
export function resource(text: string): EncodedResource {
  const match = /^(\w+)\/([^=]+)=([^@|]*)(?:@(\d+))?(?:\|(.+))?$/.exec(text);
  if (match === null) throw new Error(`a resource is written TYPE/name=content, received ${text}`);
  const [, type, name, body, ttlMs, alias] = match;
  return testResource(TYPES[type as Type], name!, body, {
    version: body!,
    ...(ttlMs === undefined ? {} : { ttlMs: Number(ttlMs) }),
    ...(alias === undefined ? {} : { aliases: [alias] }),
  });
}
