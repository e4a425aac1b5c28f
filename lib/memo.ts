/** What was worked out of an object, kept in the object itself: as a WeakMap answers, without the collector's work for one. */

/**
 * Remembers one value for each object. A value lives as long as its object, also when the memo is gone, so memos are made once, for a
 * module or for what lives as long as the process: each new one over the same objects would leave a field behind in every one of them.
 */
export interface Memo<K extends object, V> {
  /** Undefined when nothing was set. */
  get(key: K): V | undefined;
  /** Replaces what was set before. Throws a TypeError for a frozen object where the platform does not let one carry a private field. */
  set(key: K, value: V): void;
}

/** A constructor that answers what it is given: the private fields of a class that extends it are added to that. */
const Given = class {
  constructor(key: object) {
    return key;
  }
};

/**
 * V8 looks at the entries of all WeakMaps again and again at the end of a full collection, until no key is reached by the value of another,
 * while everything else stands still: with the tens of thousands that a control plane remembers this was half of that pause.
 */
export function memo<K extends object, V>(): Memo<K, V> {
  class Remembered extends Given {
    #value: V;

    constructor(key: K, value: V) {
      super(key);
      this.#value = value;
    }

    static get(key: K): V | undefined {
      return #value in key ? (key as unknown as Remembered).#value : undefined;
    }

    static set(key: K, value: V): void {
      if (#value in key) (key as unknown as Remembered).#value = value;
      else new Remembered(key, value);
    }
  }
  return Remembered;
}
