/** What is measured: one line a scenario. */

export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** `single` = one proxy, plain; `originate` = one proxy, mTLS to the upstream; `pair` = two proxies with mTLS between them. */
  readonly shape: 'single' | 'originate' | 'pair';
  readonly path: string;
  readonly connections: number;
  readonly method?: 'GET' | 'POST';
  readonly bodyBytes?: number;
  readonly closeEach?: boolean;
  /** Part of `--quick`. */
  readonly quick?: boolean;
  /** Also measured at a fixed rate of half of the slowest compared peer's saturation. */
  readonly atRate?: boolean;
}

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'get-1k',
    title: 'GET 1 KiB, keep-alive, 64 connections',
    shape: 'single',
    path: '/1k',
    connections: 64,
    quick: true,
    atRate: true,
  },
  { name: 'get-1k-c1', title: 'GET 1 KiB, 1 connection', shape: 'single', path: '/1k', connections: 1 },
  { name: 'get-1k-c1000', title: 'GET 1 KiB, 1,000 connections', shape: 'single', path: '/1k', connections: 1000 },
  {
    name: 'post-16k',
    title: 'POST 16 KiB, 64 connections',
    shape: 'single',
    path: '/1k',
    connections: 64,
    method: 'POST',
    bodyBytes: 16_384,
  },
  { name: 'stream-1m', title: 'GET 1 MiB, 16 connections', shape: 'single', path: '/1m', connections: 16, quick: true },
  {
    name: 'new-connection',
    title: 'GET 1 KiB, a new connection per request',
    shape: 'single',
    path: '/1k',
    connections: 64,
    closeEach: true,
  },
  { name: 'mtls-out', title: 'GET 1 KiB, mTLS to the upstream', shape: 'originate', path: '/1k', connections: 64 },
  { name: 'pair-mtls', title: 'GET 1 KiB, two sidecars with mTLS between them', shape: 'pair', path: '/1k', connections: 64, quick: true },
];
