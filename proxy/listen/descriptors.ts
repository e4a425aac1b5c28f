/** Room for descriptors ahead of need, so that no accepting or dialling waits for the kernel to make it. */
import { close, open, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';

/** The part of the disk that is needed; a test has its own. */
export interface DescriptorDisk {
  /** Opens something small and answers its descriptor. */
  open(done: (error: Error | null, descriptor: number) => void): void;
  close(descriptor: number): void;
}

/**
 * Linux doubles a process's table of descriptors when the next one does not fit. In a process with threads, as every Node process is, whoever
 * opens that one waits until each core has come by (an RCU grace period): 5 to 20 ms on an idle machine, and on a saturated one seconds were
 * seen in which a proxy served nobody. Here a thread of the pool waits instead: when half of the table is used, files are opened until it has
 * been doubled, and closed again.
 */
export class DescriptorRoom {
  readonly #disk: DescriptorDisk;
  readonly #descriptorsMax: number;
  #room: number;
  #growing = false;

  /** `room`: descriptors that fit now. `descriptorsMax`: what the process may have; some of it is always left to others. */
  constructor(room: number, descriptorsMax: number, disk: DescriptorDisk) {
    this.#room = room;
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
    if (descriptor * 2 < this.#room || this.#growing || this.#room + LEFT_TO_OTHERS > this.#descriptorsMax) return;
    this.#growing = true;
    this.#openNext([]);
  }

  #openNext(held: number[]): void {
    this.#disk.open((error, descriptor) => {
      if (error === null) held.push(descriptor);
      if (error === null && descriptor < this.#room && held.length <= this.#room) {
        this.#openNext(held);
        return;
      }
      for (const one of held) this.#disk.close(one);
      // Without descriptors to spare there is no room to be made, now or later.
      this.#room = error === null ? this.#room * 2 : Number.POSITIVE_INFINITY;
      this.#growing = false;
    });
  }
}

const LEFT_TO_OTHERS = 1_024;

const DISK: DescriptorDisk = {
  open: (done) => open('/dev/null', 'r', done),
  // Nothing was written to it: there is nothing that closing it could lose.
  close: (descriptor) => close(descriptor, () => undefined),
};

/** The room of this process, as Linux reports it; undefined where there is no such report. */
export function descriptorRoom(): DescriptorRoom | undefined {
  if (process.platform !== 'linux') return undefined;
  const room = Number(/^FDSize:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
  const max = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? '0';
  return room === 0 ? undefined : new DescriptorRoom(room, max === 'unlimited' ? Number.POSITIVE_INFINITY : Number(max), DISK);
}
