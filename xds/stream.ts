/** Discovery over gRPC: `serveDiscovery` binds server sessions to a grpc-js server, `connectDiscovery` keeps a client session connected. */
export { MESSAGE_BYTES_MAX, discoveryChannelOptions, discoveryServerOptions } from './grpc-options.ts';
export { createIntake } from './grpc-intake.ts';
export type { Intake, IntakeOptions } from './grpc-intake.ts';
export { serveDiscovery } from './grpc-server.ts';
export type { DiscoveryHandler, Peer, ServeDiscoveryOptions, ServerStream } from './grpc-server.ts';
export { connectDiscovery } from './grpc-client.ts';
export type { ConnectDiscoveryOptions, DiscoveryClient, DiscoveryConnection } from './grpc-client.ts';
export { StreamError } from './session/messages.ts';
