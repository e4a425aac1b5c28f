/** What one HTTP/1.1 server side is told: limits, time-outs and policies, from the HTTP connection manager's fields. */
import type { HttpConnectionManager } from '../../xds/snapshot.ts';
import type { HeadLimits } from './head.ts';
import type { PathSettings } from './path.ts';

export interface Http1Settings extends HeadLimits, PathSettings {
  /** Between requests; 0 = none. */
  readonly idleTimeoutMs: number;
  /** Without a byte either way while a request is under way; 0 = none. */
  readonly streamIdleTimeoutMs: number;
  /** From the head to the end of the request; 0 = none. */
  readonly requestTimeoutMs: number;
  /** From the first byte of a head (or the start of the connection) to its end; 0 = none. */
  readonly requestHeadersTimeoutMs: number;
  /** After which a draining connection that is idle is closed. */
  readonly drainTimeoutMs: number;
  /** 0 = none. */
  readonly maxConnectionDurationMs: number;
  /** 0 = no limit. */
  readonly maxRequestsPerConnection: number;
  /** Slowest average rate at which a body of known length may come, reckoned after 20 s; 0 = any. */
  readonly bodyBytesPerSecondMin: number;
  readonly acceptHttp10: boolean;
  readonly defaultHostForHttp10: string;
  /** Pass `Expect: 100-continue` on instead of answering it here. */
  readonly proxy100Continue: boolean;
  /** Lower case; `connect` for CONNECT. */
  readonly upgradeTypes: readonly string[];
  readonly serverName: string;
  readonly serverHeader: 'OVERWRITE' | 'APPEND_IF_ABSENT' | 'PASS_THROUGH';
}

export const DEFAULT_SETTINGS: Http1Settings = {
  headBytesMax: 60 * 1024,
  headerFieldsMax: 100,
  uriBytesMax: 8 * 1024,
  headersWithUnderscores: 'ALLOW',
  normalizePath: true,
  mergeSlashes: true,
  pathWithEscapedSlashes: 'REJECT_REQUEST',
  idleTimeoutMs: 3_600_000,
  streamIdleTimeoutMs: 300_000,
  requestTimeoutMs: 0,
  requestHeadersTimeoutMs: 10_000,
  drainTimeoutMs: 5_000,
  maxConnectionDurationMs: 0,
  maxRequestsPerConnection: 0,
  bodyBytesPerSecondMin: 100,
  acceptHttp10: true,
  defaultHostForHttp10: '',
  proxy100Continue: false,
  upgradeTypes: [],
  serverName: '',
  serverHeader: 'PASS_THROUGH',
};

/** Settings from an HTTP connection manager; what it has no field for comes from `DEFAULT_SETTINGS`. */
export function http1Settings(manager: HttpConnectionManager): Http1Settings {
  return {
    headBytesMax: manager.headBytesMax,
    headerFieldsMax: manager.headerFieldsMax,
    uriBytesMax: DEFAULT_SETTINGS.uriBytesMax,
    headersWithUnderscores: manager.headersWithUnderscores,
    normalizePath: manager.normalizePath,
    mergeSlashes: manager.mergeSlashes,
    pathWithEscapedSlashes: manager.pathWithEscapedSlashes,
    idleTimeoutMs: manager.idleTimeoutMs,
    streamIdleTimeoutMs: manager.streamIdleTimeoutMs,
    requestTimeoutMs: manager.requestTimeoutMs,
    // Envoy's default is none; a head that takes longer than this comes from an attacker.
    requestHeadersTimeoutMs: manager.requestHeadersTimeoutMs || DEFAULT_SETTINGS.requestHeadersTimeoutMs,
    drainTimeoutMs: manager.drainTimeoutMs,
    maxConnectionDurationMs: manager.maxConnectionDurationMs,
    maxRequestsPerConnection: manager.maxRequestsPerConnection,
    bodyBytesPerSecondMin: DEFAULT_SETTINGS.bodyBytesPerSecondMin,
    acceptHttp10: manager.acceptHttp10,
    defaultHostForHttp10: manager.defaultHostForHttp10,
    proxy100Continue: manager.proxy100Continue,
    upgradeTypes: manager.upgradeTypes.map((type) => type.toLowerCase()),
    serverName: manager.serverName,
    serverHeader: manager.serverHeader,
  };
}
