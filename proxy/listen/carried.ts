/** The server's side of carriers: each channel of a connection between sidecars is served as a connection of its own. */
import { Carrier } from '../mux/carrier.ts';
import type { Channel } from '../mux/channel.ts';
import type { MuxError } from '../mux/protocol.ts';
import type { AcceptedConnection } from './chain.ts';
import type { Clock } from '../../lib/clock.ts';

/** A peer that opens no channel is sent away after this time: after a first one as if it were an idle connection, before it sooner. */
const FIRST_CHANNEL_MS = 10_000;
const IDLE_MS = 3_600_000;
/** A peer that was asked to go ends its empty connection itself, so that no request is on its way when it ends; after this time it has not. */
const GOING_MS = 5_000;

export interface CarrierHost {
  readonly clock: Clock;
  /** Serves one channel; undefined = it was refused and is destroyed. */
  accept(channel: Channel): AcceptedConnection | undefined;
  /** The peer broke the protocol; the connection is gone. */
  failed(error: MuxError): void;
}

/** Serves until the carrier ends. */
export function serveCarrier(connection: AcceptedConnection, host: CarrierHost): void {
  const { clock } = host;
  const served = new Set<AcceptedConnection>();
  let waitMs = FIRST_CHANNEL_MS;
  let cancel: (() => void) | undefined;
  const wait = (): void => {
    cancel?.();
    cancel = clock.after(waitMs, () => carrier.destroy());
  };
  const carrier = new Carrier(connection.socket, 'server', {
    opened: (channel) => {
      cancel?.();
      cancel = undefined;
      if (waitMs === FIRST_CHANNEL_MS) waitMs = IDLE_MS;
      const one = host.accept(channel);
      if (one === undefined) return;
      served.add(one);
      channel.once('close', () => served.delete(one));
    },
    changed: () => {
      if (carrier.channels === 0) wait();
    },
    closed: (error) => {
      cancel?.();
      if (error !== undefined) host.failed(error);
      connection.over();
    },
  });
  wait();
  connection.served = {
    destroy: () => carrier.destroy(),
    // What would be lost is with the channels, which are connections themselves.
    busy: () => false,
    drain: () => {
      waitMs = GOING_MS;
      carrier.goAway();
      for (const one of served) one.served?.drain?.();
      if (carrier.channels === 0) wait();
    },
  };
}
