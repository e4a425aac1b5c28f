/** Resources in a file (path_config_source): a DiscoveryResponse as YAML or JSON, as Envoy reads it. */
import { type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import type { JsonObject } from '../snapshot.ts';
import { located } from './bootstrap.ts';
import { parseConfigText, type ConfigText, type TextFormat } from './config-text.ts';
import { DecodeError, topOf } from './decoding.ts';
import { decodeResource, type Decoded, resourceJson, TYPE_URLS, type Kind } from './index.ts';
import { messageFromJson } from './loose.ts';
import { messageType, typeNameOf } from './registry.ts';

export interface ResourceFile {
  /** `version_info`, empty when the file has none. */
  readonly version: string;
  readonly resources: readonly (Decoded & { readonly dump: () => JsonObject })[];
  /** One per resource that cannot be used; the others can. */
  readonly errors: readonly DecodeError[];
  readonly warnings: readonly string[];
}

/** What an error says of a field that is not known. */
export const NO_FIELD = 'is no field that is known';

const WRAPPER = 'envoy.service.discovery.v3.Resource';

/** Reads the resources of one kind. Throws DecodeError when the file as a whole is not readable; bad single resources are in `errors`. */
export function parseResourceFile(
  text: string,
  options: {
    readonly format: TextFormat;
    readonly file: string;
    readonly kind: Kind;
    /** Fields that are not known are errors and not warnings. */
    readonly rejectUnknown?: boolean;
  },
): ResourceFile {
  const source = parseConfigText(text, options.format, options.file);
  const { json } = source;
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new DecodeError('', '', 'must be an object with a list `resources`', source.where(''));
  }
  const fields = json as JsonObject;
  const list = fields['resources'] ?? [];
  const items = Array.isArray(list) ? list : [list];
  const resources: (Decoded & { dump: () => JsonObject })[] = [];
  const errors: DecodeError[] = [];
  const warnings: string[] = [];
  items.forEach((item: unknown, i: number) => {
    try {
      const resource = located(source, `resources[${i}]`, () => readResource(item, options, source, i, warnings));
      if (resources.some(({ name }) => name === resource.name)) {
        throw new DecodeError('', '', `two resources are named ${JSON.stringify(resource.name)}`, source.where(`resources[${i}]`));
      }
      resources.push(resource);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      errors.push(error);
    }
  });
  const version = fields['version_info'] ?? fields['versionInfo'];
  return { version: typeof version === 'string' ? version : '', resources, errors, warnings };
}

function readResource(
  item: unknown,
  options: { readonly kind: Kind; readonly rejectUnknown?: boolean },
  source: ConfigText,
  index: number,
  warnings: string[],
): Decoded & { dump: () => JsonObject } {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) throw new DecodeError('', '', 'must be an object with an "@type"');
  const object = item as JsonObject;
  const type = object['@type'];
  if (typeof type === 'string' && typeNameOf(type) === WRAPPER) {
    return located(source, `resources[${index}].resource`, () => readResource(object['resource'], options, source, index, warnings));
  }
  const wanted = TYPE_URLS[options.kind];
  if (typeof type !== 'string' || typeNameOf(type) !== typeNameOf(wanted)) {
    throw new DecodeError('', '@type', `must be ${wanted}, received ${JSON.stringify(type ?? null)}`);
  }
  const schema = messageType(typeNameOf(wanted)) as DescMessage;
  const unknown: string[] = [];
  const message: Message = messageFromJson(schema, object, topOf('', warnings), unknown);
  if (options.rejectUnknown === true && unknown[0] !== undefined)
    throw new DecodeError('', unknown[0], NO_FIELD, source.where(`resources[${index}].${unknown[0]}`));
  const ignored = unknown.map((path) => `${source.where(`resources[${index}].${path}`)}: unknown field ${path} is ignored`);
  const bytes = toBinary(schema, message);
  const decoded = decodeResource(wanted, bytes);
  const own = [...ignored, ...decoded.warnings.map((text) => `${source.where(`resources[${index}]`)}: ${text}`)];
  warnings.push(...own);
  return { ...decoded, warnings: own, dump: () => resourceJson(wanted, bytes) };
}
