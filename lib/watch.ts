/** A value that changes, and those who want to know: the current value is always there, listeners hear each new one. */

/** Read side of a watch. */
export interface Watch<T> {
  readonly current: T;
  /** Calls `listener` with every later value. The answer stops it. */
  subscribe(listener: (value: T) => void): () => void;
}

/** Write side: `set` stores and tells, in the order of subscription. A listener that throws stops the process: listeners handle their errors. */
export class WatchValue<T> implements Watch<T> {
  #current: T;
  readonly #listeners = new Set<(value: T) => void>();

  constructor(initial: T) {
    this.#current = initial;
  }

  get current(): T {
    return this.#current;
  }

  set(value: T): void {
    this.#current = value;
    for (const listener of this.#listeners) listener(value);
  }

  subscribe(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
