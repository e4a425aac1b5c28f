/** Two carriers joined by a socket pair, for tests. */
import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { once } from 'node:events';
import { Carrier } from './carrier.ts';
import type { Channel } from './channel.ts';
import type { MuxError } from './protocol.ts';

export interface CarrierPair {
  readonly client: Carrier;
  readonly server: Carrier;
  /** The socket below the client's carrier, and below the server's. */
  readonly sockets: readonly [Socket, Socket];
  /** Channels that the server got, in order. */
  readonly opened: Channel[];
  /** What the sides were told at their end. */
  readonly ends: { client?: MuxError | 'orderly'; server?: MuxError | 'orderly' };
  close(): Promise<void>;
}

/** Real sockets on loopback. `onOpened` serves a channel of the server. */
export async function carrierPair(onOpened: (channel: Channel) => void = () => undefined): Promise<CarrierPair> {
  const [below, accepted, closeSockets] = await socketPair();
  const opened: Channel[] = [];
  const ends: CarrierPair['ends'] = {};
  const server = new Carrier(accepted, 'server', {
    opened: (channel) => {
      opened.push(channel);
      onOpened(channel);
    },
    changed: () => undefined,
    closed: (error) => (ends.server = error ?? 'orderly'),
  });
  const client = new Carrier(below, 'client', { changed: () => undefined, closed: (error) => (ends.client = error ?? 'orderly') });
  return {
    client,
    server,
    sockets: [below, accepted],
    opened,
    ends,
    close: async () => {
      client.destroy();
      server.destroy();
      await closeSockets();
    },
  };
}

/** A connected pair of TCP sockets: client's, server's, and what ends both. */
export async function socketPair(): Promise<readonly [Socket, Socket, () => Promise<void>]> {
  const listener = createServer();
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const client = connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [[server]] = (await Promise.all([once(listener, 'connection'), once(client, 'connect')])) as [[Socket], unknown];
  return [
    client,
    server,
    async () => {
      client.destroy();
      server.destroy();
      listener.close();
      await once(listener, 'close');
    },
  ];
}
