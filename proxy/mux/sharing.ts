/** The client's side of carriers: a dialler that dials once, and opens channels on what it has as long as the peer speaks the protocol. */
import type { Socket } from 'node:net';
import type { Clock } from '../../lib/clock.ts';
import { ProxyError } from '../errors.ts';
import type { Dial, Dialled } from '../upstream/dial.ts';
import { Carrier } from './carrier.ts';
import type { Channel } from './channel.ts';
import { MUX_ALPN } from './protocol.ts';

/** How long a carrier without channels is kept: the next one would cost a handshake. */
const IDLE_MS = 60_000;
/** A connection takes new channels for this share of the time that its certificates have left. */
const CERTIFICATE_SHARE = 0.8;
/** Carriers to one endpoint that are made only because the others are clogged. */
const CARRIERS_SPREAD_MAX = 4;

/** The socket-like face of a channel: it has all that the codecs and tunnels use of a socket. */
export function asSocket(channel: Channel): Socket {
  return channel as unknown as Socket;
}

export interface SharedDial {
  readonly dial: Dial;
  /** Nobody will dial any more: carriers end with their last channel. */
  drain(): void;
}

/** Wraps the dialler of one endpoint. Connections whose ALPN is not ours are handed on as they are. */
export function shareConnections(dial: Dial, clock: Clock): SharedDial {
  return new Sharing(dial, clock);
}

interface Waiter {
  readonly done: Dialled;
  cancel: () => void;
}

interface Held {
  readonly carrier: Carrier;
  readonly notAfterMs: number | undefined;
  /** On the monotonic clock: from then on it takes no new channels. */
  readonly retireAtMs: number;
  cancelIdle: (() => void) | undefined;
}

class Sharing implements SharedDial {
  readonly #dialOne: Dial;
  readonly #clock: Clock;
  readonly #held = new Set<Held>();
  /** Those who wait for the one dial that is under way. */
  readonly #waiting = new Set<Waiter>();
  #cancelDial: (() => void) | undefined;
  /** What the last connection spoke; until the first one is there nobody knows, and all wait for it. */
  #speaksMux = true;
  #draining = false;

  constructor(dial: Dial, clock: Clock) {
    this.#dialOne = dial;
    this.#clock = clock;
  }

  readonly dial: Dial = (done) => {
    const waiter: Waiter = { done, cancel: () => undefined };
    this.#start(waiter);
    return () => waiter.cancel();
  };

  #start(waiter: Waiter): void {
    const held = this.#choose();
    if (held !== undefined) this.#openOn(held, waiter.done);
    else if (!this.#speaksMux)
      waiter.cancel = this.#dialOne((error, socket, notAfterMs) => this.#dialled(error, socket, notAfterMs, waiter.done));
    else {
      this.#waiting.add(waiter);
      waiter.cancel = () => this.#stopWaiting(waiter);
      if (this.#waiting.size === 1) this.#dialForAll();
    }
  }

  #stopWaiting(waiter: Waiter): void {
    if (!this.#waiting.delete(waiter) || this.#waiting.size > 0) return;
    this.#cancelDial?.();
    this.#cancelDial = undefined;
  }

  drain(): void {
    this.#draining = true;
    for (const held of this.#held) this.#settle(held);
  }

  /** The one with the fewest channels among those that flow; a clogged one when there are enough. */
  #choose(): Held | undefined {
    const nowMs = this.#clock.now();
    let best: Held | undefined;
    let clogged: Held | undefined;
    for (const held of this.#held) {
      if (!held.carrier.usable || nowMs >= held.retireAtMs) continue;
      if (!held.carrier.flows) clogged ??= held;
      else if (best === undefined || held.carrier.channels < best.carrier.channels) best = held;
    }
    return best ?? (this.#held.size >= CARRIERS_SPREAD_MAX ? clogged : undefined);
  }

  #dialForAll(): void {
    let over = false;
    const cancel = this.#dialOne((error, socket, notAfterMs) => {
      over = true;
      this.#cancelDial = undefined;
      this.#dialledForAll(error, socket, notAfterMs);
    });
    if (!over) this.#cancelDial = cancel;
  }

  #dialledForAll(error: ProxyError | undefined, socket: Socket | undefined, notAfterMs: number | undefined): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    if (socket === undefined) {
      for (const waiter of waiting) waiter.done(error ?? new ProxyError('connectFailed'), undefined);
      return;
    }
    this.#dialled(undefined, socket, notAfterMs, waiting[0]!.done);
    // The others get channels of it, or dial for themselves now that it is known to take no channels.
    for (const waiter of waiting.slice(1)) this.#start(waiter);
  }

  #dialled(error: ProxyError | undefined, socket: Socket | undefined, notAfterMs: number | undefined, done: Dialled): void {
    if (socket === undefined) {
      done(error ?? new ProxyError('connectFailed'), undefined);
      return;
    }
    this.#speaksMux = (socket as { readonly alpnProtocol?: unknown }).alpnProtocol === MUX_ALPN;
    if (!this.#speaksMux) done(undefined, socket, notAfterMs);
    else this.#openOn(this.#hold(socket, notAfterMs), done);
  }

  #hold(socket: Socket, notAfterMs: number | undefined): Held {
    const clock = this.#clock;
    const carrier = new Carrier(socket, 'client', {
      changed: () => this.#settle(held),
      closed: () => {
        held.cancelIdle?.();
        this.#held.delete(held);
      },
    });
    const leftMs = notAfterMs === undefined ? Number.POSITIVE_INFINITY : CERTIFICATE_SHARE * (notAfterMs - clock.wallMs());
    const held: Held = { carrier, notAfterMs, retireAtMs: clock.now() + leftMs, cancelIdle: undefined };
    this.#held.add(held);
    return held;
  }

  #openOn(held: Held, done: Dialled): void {
    held.cancelIdle?.();
    held.cancelIdle = undefined;
    done(undefined, asSocket(held.carrier.open()), held.notAfterMs);
  }

  /** Ends a carrier that has no channels and no future; one that may be needed again waits for a while. */
  #settle(held: Held): void {
    if (held.carrier.channels > 0) return;
    held.cancelIdle?.();
    held.cancelIdle = undefined;
    if (this.#draining || held.carrier.peerDrains || this.#clock.now() >= held.retireAtMs) held.carrier.destroy();
    else held.cancelIdle = this.#clock.after(IDLE_MS, () => held.carrier.destroy());
  }
}
