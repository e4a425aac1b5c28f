/** Load reports (LRS) between the wire and our own plain types. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { LocalitySchema } from '../gen/envoy/config/core/v3/base_pb.js';
import { LoadReportingService, LoadStatsRequestSchema, LoadStatsResponseSchema } from '../gen/envoy/service/load_stats/v3/lrs_pb.js';
import type { Locality } from '../snapshot.ts';
import type { NodeInfo } from '../session/messages.ts';
import { boundElements } from './bounded.ts';
import { fromDuration, toDuration } from './duration.ts';
import { nodeInfo, nodeMessage } from './node.ts';

/** What happened to one cluster since the last report. Counters are differences; `inProgress` is the number now. */
export interface ClusterLoad {
  readonly cluster: string;
  /** EDS service name; empty when it is the cluster's. */
  readonly service: string;
  readonly intervalMs: number;
  readonly localities: readonly LocalityLoad[];
  readonly dropped: number;
  readonly droppedByCategory: Readonly<Record<string, number>>;
}

export interface LocalityLoad {
  readonly locality: Locality;
  readonly priority: number;
  readonly issued: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly inProgress: number;
}

/** The first message of a stream has the node and no clusters. */
export interface LoadReport {
  readonly node: NodeInfo | undefined;
  readonly clusters: readonly ClusterLoad[];
}

/** What a server wants to hear, and how often. */
export interface LoadInstruction {
  readonly clusters: readonly string[] | 'all';
  readonly intervalMs: number;
}

/** Some thousand clusters with some localities each. */
const REPORT_ELEMENTS_MAX = 400_000;

const METHOD = LoadReportingService.method.streamLoadStats;

export const LOAD_REPORT_METHOD = {
  path: `/${METHOD.parent.typeName}/${METHOD.name}`,
  requestStream: true,
  responseStream: true,
  requestSerialize: encodeLoadReport,
  requestDeserialize: decodeLoadReport,
  responseSerialize: encodeLoadInstruction,
  responseDeserialize: decodeLoadInstruction,
} as const;

function encodeLoadReport(report: LoadReport): Buffer {
  const message = create(LoadStatsRequestSchema, {
    ...(report.node === undefined ? {} : { node: nodeMessage(report.node) }),
    clusterStats: report.clusters.map((load) => ({
      clusterName: load.cluster,
      clusterServiceName: load.service,
      loadReportInterval: toDuration(load.intervalMs),
      totalDroppedRequests: BigInt(load.dropped),
      droppedRequests: Object.entries(load.droppedByCategory).map(([category, count]) => ({ category, droppedCount: BigInt(count) })),
      upstreamLocalityStats: load.localities.map((at) => ({
        locality: create(LocalitySchema, { region: at.locality.region, zone: at.locality.zone, subZone: at.locality.subZone }),
        priority: at.priority,
        totalIssuedRequests: BigInt(at.issued),
        totalSuccessfulRequests: BigInt(at.succeeded),
        totalErrorRequests: BigInt(at.failed),
        totalRequestsInProgress: BigInt(at.inProgress),
      })),
    })),
  });
  return Buffer.from(toBinary(LoadStatsRequestSchema, message));
}

function decodeLoadReport(bytes: Uint8Array): LoadReport {
  boundElements(LoadStatsRequestSchema, bytes, REPORT_ELEMENTS_MAX);
  const message = fromBinary(LoadStatsRequestSchema, bytes);
  return {
    node: message.node === undefined ? undefined : nodeInfo(message.node),
    clusters: message.clusterStats.map((stats) => ({
      cluster: stats.clusterName,
      service: stats.clusterServiceName,
      intervalMs: fromDuration(stats.loadReportInterval, 0),
      dropped: Number(stats.totalDroppedRequests),
      droppedByCategory: Object.fromEntries(stats.droppedRequests.map((drop) => [drop.category, Number(drop.droppedCount)])),
      localities: stats.upstreamLocalityStats.map((at) => ({
        locality: { region: at.locality?.region ?? '', zone: at.locality?.zone ?? '', subZone: at.locality?.subZone ?? '' },
        priority: at.priority,
        issued: Number(at.totalIssuedRequests),
        succeeded: Number(at.totalSuccessfulRequests),
        failed: Number(at.totalErrorRequests),
        inProgress: Number(at.totalRequestsInProgress),
      })),
    })),
  };
}

function encodeLoadInstruction(instruction: LoadInstruction): Buffer {
  const message = create(LoadStatsResponseSchema, {
    clusters: instruction.clusters === 'all' ? [] : [...instruction.clusters],
    sendAllClusters: instruction.clusters === 'all',
    loadReportingInterval: toDuration(instruction.intervalMs),
  });
  return Buffer.from(toBinary(LoadStatsResponseSchema, message));
}

function decodeLoadInstruction(bytes: Uint8Array): LoadInstruction {
  const message = fromBinary(LoadStatsResponseSchema, bytes);
  return {
    clusters: message.sendAllClusters ? 'all' : message.clusters,
    intervalMs: fromDuration(message.loadReportingInterval, 0),
  };
}
