/** Load reporting (LRS): a server that takes reports, and a client that sends one per interval (rule 46). */
import { Metadata } from '@grpc/grpc-js';
import type { ChannelCredentials, Client, Server, ServerDuplexStream, ClientDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../lib/clock.ts';
import type { Random } from '../lib/random.ts';
import { closeChannel, openChannel } from './grpc-client-stream.ts';
import { LOAD_REPORT_METHOD } from './resources/load-report.ts';
import type { ClusterLoad, LoadInstruction, LoadReport } from './resources/load-report.ts';
import { Backoff } from './session/backoff.ts';
import { peerOf } from './grpc-inside.ts';
import type { Peer } from './grpc-server.ts';
import { CODES, StreamError } from './session/messages.ts';
import type { NodeInfo } from './session/messages.ts';

export type { ClusterLoad, LocalityLoad } from './resources/load-report.ts';

/** Shortest interval that a client obeys; a server that asks for less gets this. */
const INTERVAL_MS_MIN = 100;

/**
 * Serves LRS. Every client is asked for all clusters: `@grpc/grpc-js-xds` never reports the first one of a list.
 * `onReport` gets each report with the node of the stream's first message; a stream without one is refused, and one that `admit` throws at.
 */
export function serveLoadReports(
  server: Server,
  onReport: (node: NodeInfo, clusters: readonly ClusterLoad[]) => void,
  options: { readonly intervalMs: number; readonly transport: 'plaintext' | 'tls'; readonly admit: (peer: Peer, node: NodeInfo) => void },
): void {
  const { path, responseSerialize, requestDeserialize } = LOAD_REPORT_METHOD;
  const handle = (call: ServerDuplexStream<LoadReport, LoadInstruction>): void => {
    let node: NodeInfo | undefined;
    call.on('data', (report: LoadReport) => {
      if (node === undefined) {
        if (report.node === undefined) {
          call.emit('error', { code: CODES.invalidArgument, details: 'the first report of a stream must carry a node' });
          return;
        }
        try {
          options.admit(peerOf(call, options.transport), report.node);
        } catch (error) {
          const { code, message } = error instanceof StreamError ? error : new StreamError(CODES.internal, 'cannot take load reports');
          call.emit('error', { code, details: message });
          return;
        }
        node = report.node;
        call.write({ clusters: 'all', intervalMs: options.intervalMs });
      }
      if (report.clusters.length > 0) onReport(node, report.clusters);
    });
    call.on('end', () => call.end());
    // A broken stream needs no more than grpc-js does by itself: the client reconnects.
    call.on('error', () => undefined);
  };
  server.register(path, handle, responseSerialize, requestDeserialize, 'bidi');
}

export interface ReportLoadOptions {
  readonly target: string;
  readonly credentials: () => ChannelCredentials;
  /** As for discovery: the name that the control plane proves by its certificate, where it is not the target's. */
  readonly serverName?: string;
  readonly metadata?: () => Readonly<Record<string, string>>;
  readonly node: NodeInfo;
  readonly clock: Clock;
  readonly random: Random;
  /** Called once per interval: what happened since the call before, for the clusters that the server wants. */
  readonly collect: (clusters: readonly string[] | 'all', intervalMs: number) => readonly ClusterLoad[];
}

/** Reports load until the answer is called; reconnects with backoff. What was collected and could not be sent is lost, as LRS has it. */
export function reportLoad(options: ReportLoadOptions): () => void {
  const { clock, node } = options;
  const backoff = new Backoff({ random: options.random });
  let closed = false;
  let cancel = (): void => undefined;
  let call: ClientDuplexStream<LoadReport, LoadInstruction> | undefined;
  let client: Client | undefined;

  const connect = (): void => {
    try {
      open();
    } catch {
      // Credentials that cannot be read now may be there later; whoever renews them tells why they are not.
      cancel = clock.after(backoff.nextMs(), connect);
    }
  };
  const open = (): void => {
    const { path, requestSerialize, responseDeserialize } = LOAD_REPORT_METHOD;
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(options.metadata?.() ?? {})) metadata.set(name, value);
    client = openChannel(options.target, options);
    const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
    call = stream;
    let sinceMs = clock.now();
    const report = (instruction: LoadInstruction): void => {
      const nowMs = clock.now();
      const clusters = options.collect(instruction.clusters, nowMs - sinceMs);
      sinceMs = nowMs;
      const intervalMs = Math.max(INTERVAL_MS_MIN, instruction.intervalMs);
      // The next interval begins when this report is on its way: a server that does not read gets no pile of them.
      stream.write({ node: undefined, clusters }, () => {
        if (call === stream) cancel = clock.after(intervalMs, () => report(instruction));
      });
    };
    stream.on('data', (instruction: LoadInstruction) => {
      backoff.reset();
      cancel();
      cancel = clock.after(Math.max(INTERVAL_MS_MIN, instruction.intervalMs), () => report(instruction));
    });
    stream.on('error', again);
    stream.on('end', again);
    stream.write({ node, clusters: [] });
  };
  const again = (): void => {
    if (call === undefined) return;
    stop();
    if (!closed) cancel = clock.after(backoff.nextMs(), connect);
  };
  const stop = (): void => {
    cancel();
    const ended = call;
    call = undefined;
    ended?.cancel();
    if (client !== undefined) closeChannel(client);
  };
  connect();
  return () => {
    closed = true;
    stop();
  };
}
