/** Proxyless gRPC clients of `@grpc/grpc-js-xds` under our control plane. */
import { startAgent } from '../support/grpc-peers.ts';
import { proxylessSuite } from '../support/grpc-suite.ts';

proxylessSuite(startAgent);
