/** Takes out of this process's resident memory what only its start needed: pages of Node's binary and of libraries, and what `malloc` keeps. */
import { readFileSync } from 'node:fs';

/** A part of the address space. */
export interface Mapping {
  readonly address: bigint;
  readonly bytes: bigint;
}

/** A mapping of a file in `/proc/PID/smaps` that is private and not writable, with its details. The inode of one without a file is 0. */
const FILE_MAPPING = /^([0-9a-f]+)-([0-9a-f]+) r-[-x]p [0-9a-f]+ \S+ [1-9]\d* .*\n((?:[A-Z]\w*:.*\n)*)/gm;
/** `madvise` on Linux: the pages leave the process; the next access to one brings it back as the file has it. */
const MADV_DONTNEED = 4;

/**
 * Mappings that are the same as the file behind them, from the text of `/proc/self/smaps`: without a single page that differs from it.
 * Relocations, break points and probes make such pages, and those must stay.
 */
export function unchangedMappings(smaps: string): Mapping[] {
  const found: Mapping[] = [];
  for (const [, start, end, details] of smaps.matchAll(FILE_MAPPING)) {
    if (!/^Anonymous: +0 kB$/m.test(details!)) continue;
    const address = BigInt(`0x${start!}`);
    found.push({ address, bytes: BigInt(`0x${end!}`) - address });
  }
  return found;
}

/**
 * Answers a function that gives back what is not in use, or undefined where that cannot be done: it takes Linux, and a Node that has
 * `node:ffi` (26.1) and has it switched on. A call takes 3 to 5 ms, the first 10 to 15; each 64 KiB of the binary that is used again cost one
 * page fault without a read from disk.
 */
export function residentMemoryRelease(): (() => void) | undefined {
  const calls = process.platform === 'linux' ? systemCalls() : undefined;
  if (calls === undefined) return undefined;
  return () => {
    calls.trim?.(0n);
    // Read each time: who put a probe into a mapping since then has changed it.
    for (const { address, bytes } of unchangedMappings(readFileSync('/proc/self/smaps', 'latin1')))
      calls.madvise(address, bytes, MADV_DONTNEED);
  };
}

interface SystemCalls {
  readonly madvise: (address: bigint, bytes: bigint, advice: number) => number;
  /** glibc's `malloc_trim`; other C libraries have none. */
  readonly trim: ((keepBytes: bigint) => number) | undefined;
}

function systemCalls(): SystemCalls | undefined {
  const ffi = foreignFunctions();
  if (ffi === undefined) return undefined;
  try {
    // The library stays open: its functions are used as long as the process lives.
    const { lib, functions } = ffi.dlopen(null, { madvise: { arguments: ['u64', 'u64', 'i32'], return: 'i32' } });
    return { madvise: functions.madvise, trim: trimOf(lib) };
  } catch (error) {
    if (isFfiError(error)) return undefined;
    throw error;
  }
}

function trimOf(lib: InstanceType<typeof import('node:ffi').DynamicLibrary>): SystemCalls['trim'] {
  try {
    return lib.getFunction('malloc_trim', { arguments: ['u64'], return: 'i32' });
  } catch (error) {
    if (isFfiError(error)) return undefined;
    throw error;
  }
}

/** The symbol is not there, or Node's permission model keeps us from it. */
function isFfiError(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return code === 'ERR_FFI_CALL_FAILED' || code === 'ERR_ACCESS_DENIED';
}

/** Node's module, without the warning that it is experimental: what is used of it is checked here and can be missing. */
function foreignFunctions(): typeof import('node:ffi') | undefined {
  const { emitWarning } = process;
  process.emitWarning = () => undefined;
  try {
    return process.getBuiltinModule('node:ffi') as typeof import('node:ffi') | undefined;
  } finally {
    process.emitWarning = emitWarning;
  }
}
