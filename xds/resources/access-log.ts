/** Access logs: the sink as an extension, and the filter that says which requests it takes. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type AccessLog, AccessLogFilterSchema, type AccessLogSchema } from '../gen/envoy/config/accesslog/v3/accesslog_pb.js';
import type { AccessLogConfig } from '../snapshot.ts';
import { inside, type Place, refuse } from './decoding.ts';
import { extensionOf, packExtension } from './extension.ts';
import { CONFIG_STYLE, messageJson } from './json.ts';
import { newMessage } from './loose.ts';

export function decodeAccessLogs(wire: readonly AccessLog[], place: Place): readonly AccessLogConfig[] {
  return wire.map((log, i) => {
    const any = log.configType.case === 'typedConfig' ? log.configType.value : undefined;
    const extension = extensionOf(log.name, any, inside(place, i));
    if (extension.type === '') refuse(inside(place, i), 'needs a typed_config', log.name);
    return log.filter === undefined ? extension : { ...extension, filter: messageJson(AccessLogFilterSchema, log.filter, CONFIG_STYLE) };
  });
}

export function encodeAccessLogs(logs: readonly AccessLogConfig[]): MessageInitShape<typeof AccessLogSchema>[] {
  return logs.map((log) => {
    const any = packExtension(log);
    return {
      name: log.name,
      ...(any === undefined ? {} : { configType: { case: 'typedConfig' as const, value: any } }),
      ...(log.filter === undefined
        ? {}
        : { filter: newMessage(AccessLogFilterSchema, log.filter, `the filter of access log "${log.name}"`) }),
    };
  });
}
