/** Room for descriptors ahead of need, so that no accepting or dialling waits for the kernel to make it. */
import { close, open, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { Clock } from './clock.ts';

/** The part of the disk that is needed; a test has its own. */
export interface DescriptorDisk {
  /** Opens something small and answers its descriptor. */
  open(done: (error: Error | null, descriptor: number) => void): void;
  close(descriptor: number, done: () => void): void;
  /** Descriptors that fit now. */
  room(): number;
}

/**
 * Linux doubles a process's table of descriptors when the next one does not fit. In a process with threads, as every Node process is, whoever
 * opens that one waits until each core has come by (an RCU grace period): 5 to 20 ms on an idle machine, and on a saturated one seconds were
 * seen in which a proxy served nobody. Here a thread of the pool waits instead: when half of the table is used, files are opened until it has
 * been doubled, and closed again.
 */
export class DescriptorRoom {
  readonly #disk: DescriptorDisk;
  readonly #clock: Clock;
  readonly #descriptorsMax: number;
  #room: number;
  #wanted = 0;
  #growing = false;

  /** `descriptorsMax`: what the process may have; some of it is always left to others. */
  constructor(descriptorsMax: number, disk: DescriptorDisk, clock: Clock) {
    this.#clock = clock;
    this.#room = disk.room();
    this.#descriptorsMax = descriptorsMax;
    this.#disk = disk;
  }

  /** Descriptors that fit without waiting. */
  get room(): number {
    return this.#room;
  }

  /** A socket was accepted: its descriptor is the lowest that was free, so it says how many are used. */
  accepted(socket: Socket): void {
    this.used((socket as unknown as { _handle: { readonly fd?: number } | null })._handle?.fd ?? 0);
  }

  used(descriptor: number): void {
    if (descriptor * 2 >= this.#room) this.#grow();
  }

  /** Makes room for this many: whoever serves many clients gets them all at once when it begins, and accepts them in one pass. */
  expect(descriptors: number): void {
    this.#wanted = descriptors;
    if (this.#room < descriptors) this.#grow();
  }

  #grow(): void {
    if (this.#growing || this.#room + LEFT_TO_OTHERS > this.#descriptorsMax) return;
    this.#growing = true;
    this.#openNext([]);
  }

  #grown(): void {
    this.#growing = false;
    if (this.#room < this.#wanted) this.#grow();
  }

  #openNext(held: number[]): void {
    this.#disk.open((error, descriptor) => {
      if (error !== null) {
        // Without descriptors to spare there is no room to be made, now or later.
        this.#room = Number.POSITIVE_INFINITY;
        this.#closeNext(held, () => this.#grown());
        return;
      }
      held.push(descriptor);
      if (descriptor < this.#room - 1 && held.length < this.#room) this.#openNext(held);
      else this.#openLast(held);
    });
  }

  /** The table is full: the next file makes it larger, and while it waits the others are closed, so that whoever accepts meanwhile finds room. */
  #openLast(held: number[]): void {
    let underWay = 2;
    const over = (): void => {
      if (--underWay === 0) this.#grown();
    };
    this.#disk.open((error, descriptor) => {
      // It gets a place that was freed meanwhile, so only the kernel can say whether there is more room now.
      const room = this.#disk.room();
      // Whoever did not get more would try again at each connection.
      this.#room = room > this.#room ? room : Number.POSITIVE_INFINITY;
      this.#closeNext(error === null ? [descriptor] : [], over);
    });
    this.#clock.after(HEAD_START_MS, () => this.#closeNext(held, over));
  }

  /** One after the other as well: thousands at once would hold everybody up for 50 ms. */
  #closeNext(held: number[], done: () => void): void {
    const descriptor = held.pop();
    if (descriptor === undefined) done();
    else this.#disk.close(descriptor, () => this.#closeNext(held, done));
  }
}

const LEFT_TO_OTHERS = 1_024;
/** For the last file to get to where it waits. */
const HEAD_START_MS = 2;

const DISK: DescriptorDisk = {
  open: (done) => open('/dev/null', 'r', done),
  // Nothing was written to it: there is nothing that closing it could lose.
  close: (descriptor, done) => close(descriptor, () => done()),
  room: () => Number(/^FDSize:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0),
};

/** The room of this process, as Linux reports it; undefined where there is no such report. */
export function descriptorRoom(clock: Clock): DescriptorRoom | undefined {
  if (process.platform !== 'linux' || DISK.room() === 0) return undefined;
  const max = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? '0';
  return new DescriptorRoom(max === 'unlimited' ? Number.POSITIVE_INFINITY : Number(max), DISK, clock);
}
