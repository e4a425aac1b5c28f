/** A connection between two sidecars that carries channels: it reads their frames, writes those of one turn together, and ends with its last channel. */
import type { Socket } from 'node:net';
import { Output } from '../http1/output.ts';
import { giveSpare, readFrom, takeSpare } from '../http1/reading.ts';
import { Channel } from './channel.ts';
import type { ChannelCarrier } from './channel.ts';
import { CHANNELS_MAX, CHANNEL_ID_MAX, FrameReader, GOAWAY, MuxError, RESET, channelText, typeText } from './protocol.ts';
import type { FrameSink } from './protocol.ts';

/** Whom a carrier belongs to. */
export interface CarrierOwner {
  /** The peer opened a channel. A client's never does. */
  opened?(channel: Channel): void;
  /** The last channel is gone, or the peer wants no more of them: time to think about the end. */
  changed(): void;
  /** The connection is gone, and all channels with it; called once. */
  closed(error: MuxError | undefined): void;
}

export class Carrier implements ChannelCarrier, FrameSink {
  readonly socket: Socket;
  readonly #owner: CarrierOwner;
  readonly #isClient: boolean;
  readonly #output: Output;
  readonly #reader = new FrameReader(this);
  readonly #channels = new Set<Channel>();
  /** Those that have a number: all but channels of ours that have not sent anything. */
  readonly #numbered = new Map<number, Channel>();
  #lastId = 0;
  #open = true;
  /** The peer wants no more channels. */
  peerDrains = false;

  constructor(socket: Socket, side: 'client' | 'server', owner: CarrierOwner) {
    this.socket = socket;
    this.#owner = owner;
    this.#isClient = side === 'client';
    this.#output = new Output(socket);
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    // A peer that only stops writing has no way to give credit any more.
    socket.on('end', () => this.#close(undefined));
    socket.on('close', () => this.#close(undefined));
    readFrom(socket, { read: (buffer, bytes) => this.#read(buffer, bytes) });
    socket.resume();
  }

  /** Channels that are open now. */
  get channels(): number {
    return this.#channels.size;
  }

  /** Can it take another channel? */
  get usable(): boolean {
    return this.#open && !this.peerDrains && this.channels < CHANNELS_MAX && this.#lastId < CHANNEL_ID_MAX && this.socket.writable;
  }

  /** Does the network take what is written? When it does not, new channels are better off elsewhere. */
  get flows(): boolean {
    return !this.socket.writableNeedDrain;
  }

  /** A new channel of ours. Only on a `usable` carrier of a client. */
  open(): Channel {
    return this.#add(new Channel(this, 0));
  }

  /** Asks the peer to open no more channels. */
  goAway(): void {
    if (this.#open) this.#output.later(typeText(GOAWAY, 0) + channelText(0));
  }

  /** Ends the connection and every channel at once. */
  destroy(): void {
    this.#close(undefined);
  }

  // ---- ChannelCarrier -------------------------------------------------------------------------------------------------

  get remoteAddress(): string | undefined {
    return this.socket.remoteAddress;
  }

  get remotePort(): number | undefined {
    return this.socket.remotePort;
  }

  get localAddress(): string | undefined {
    return this.socket.localAddress;
  }

  get localPort(): number | undefined {
    return this.socket.localPort;
  }

  later(frames: string): void {
    if (this.#open) this.#output.later(frames);
  }

  write(frames: Buffer, done: (error?: Error | null) => void): void {
    this.#output.now().write(frames, done);
  }

  number(channel: Channel): string {
    channel.id = ++this.#lastId;
    this.#numbered.set(channel.id, channel);
    return channelText(channel.id);
  }

  closed(channel: Channel): void {
    this.#channels.delete(channel);
    this.#numbered.delete(channel.id);
    if (this.#open && this.#channels.size === 0) this.#owner.changed();
  }

  takeBuffer(): Buffer {
    return takeSpare();
  }

  giveBuffer(buffer: Buffer): void {
    giveSpare(buffer);
  }

  // ---- FrameSink ------------------------------------------------------------------------------------------------------

  data(id: number, bytes: Buffer): void {
    if (!this.#open) return;
    const channel = this.#numbered.get(id) ?? this.#opened(id);
    if (channel?.received(bytes) === false) throw new MuxError(`Channel ${id} got more than it gave credit for.`);
  }

  end(id: number): void {
    if (this.#numbered.get(id)?.peerEnded() === false) throw new MuxError(`Channel ${id} was ended twice.`);
  }

  reset(id: number): void {
    this.#numbered.get(id)?.cut();
  }

  credit(id: number, bytes: number): void {
    if (this.#numbered.get(id)?.credited(bytes) === false) throw new MuxError(`Channel ${id} got credit for more than was sent.`);
  }

  goaway(): void {
    if (this.peerDrains) return;
    this.peerDrains = true;
    this.#owner.changed();
  }

  // ---------------------------------------------------------------------------------------------------------------------

  #read(buffer: Buffer, bytes: number): void {
    if (!this.#open) return;
    try {
      this.#reader.read(buffer, bytes);
    } catch (error) {
      // What the owner of a channel throws is a fault of ours: it must not end the process, and nothing can be trusted after it.
      this.#close(error instanceof MuxError ? error : new MuxError(`A channel failed: ${String(error)}`));
    }
  }

  /** Bytes for a channel that is not there: the client's next one, or one that is closed here and not yet at the peer. */
  #opened(id: number): Channel | undefined {
    if (id <= this.#lastId) return undefined;
    if (this.#isClient) throw new MuxError(`A server must not open channels, received number ${id}.`);
    this.#lastId = id;
    if (this.#channels.size >= CHANNELS_MAX) {
      this.#output.later(typeText(RESET, 0) + channelText(id));
      return undefined;
    }
    const channel = this.#add(new Channel(this, id));
    this.#numbered.set(id, channel);
    this.#owner.opened?.(channel);
    return channel;
  }

  #add(channel: Channel): Channel {
    this.#channels.add(channel);
    return channel;
  }

  #close(error: MuxError | undefined): void {
    if (!this.#open) return;
    this.#open = false;
    this.socket.destroy();
    for (const channel of [...this.#channels]) channel.cut();
    this.#owner.closed(error);
  }
}
