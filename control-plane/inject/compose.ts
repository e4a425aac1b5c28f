/** Gives every service of a compose file a sidecar service that shares its network, in the text itself. */
import { isMap, isScalar, isSeq, stringify } from 'yaml';
import { InjectError, TextEdit, mapAt, pairOf, parseDocuments, seqAt, textAt } from './edit.ts';
import type { MapNode } from './edit.ts';
import { APPLICATION_ENV, INJECT_LABEL } from './template.ts';
import type { InjectOptions } from './template.ts';
import type { InjectResult } from './kubernetes.ts';

const SIDECAR_SUFFIX = '-sidecar';
const CONTROL_PLANE_SERVICE = 'meshwork-control-plane';

/** True when the text is a compose file: a `services` mapping and no `apiVersion`. */
export function isCompose(text: string, file: string): boolean {
  const contents = parseDocuments(text, file)[0]?.contents;
  return mapAt(contents, 'services') !== undefined && textAt(contents, 'apiVersion') === undefined;
}

/** Injects every service but those labelled `meshwork.dev/inject: disabled`. Idempotent. Throws `InjectError` on broken YAML. */
export function injectCompose(text: string, file: string, options: InjectOptions): InjectResult {
  const document = parseDocuments(text, file)[0];
  const services = mapAt(document?.contents, 'services');
  const parent = isMap(document?.contents) ? pairOf(document.contents as MapNode, 'services') : undefined;
  if (services === undefined || parent === undefined) throw new InjectError(`${file}: no services found in this compose file`);
  const edit = new TextEdit(text);
  const notes: string[] = [];
  const names = new Set(services.items.map((pair) => (isScalar(pair.key) ? String(pair.key.value) : '')));
  const sidecars: Record<string, unknown> = {};
  for (const pair of services.items) {
    const name = isScalar(pair.key) ? String(pair.key.value) : '';
    const service = pair.value;
    if (name.endsWith(SIDECAR_SUFFIX) || name === CONTROL_PLANE_SERVICE || !isMap(service)) continue;
    const why = reasonToSkip(service as MapNode, name, names);
    if (why !== undefined) {
      notes.push(`service ${name}: not injected: ${why}`);
      continue;
    }
    sidecars[`${name}${SIDECAR_SUFFIX}`] = sidecarService(name, service as MapNode, options);
    addEnvironment(service as MapNode, edit, pair);
    notes.push(`service ${name}: injected`);
  }
  if (Object.keys(sidecars).length === 0) return { text, notes };
  if (!names.has(CONTROL_PLANE_SERVICE) && options.controlPlane.includes(CONTROL_PLANE_SERVICE))
    sidecars[CONTROL_PLANE_SERVICE] = controlPlaneService(options);
  for (const [name, service] of Object.entries(sidecars)) edit.addKey(services, name, service, parent);
  return { text: edit.apply(), notes };
}

function reasonToSkip(service: MapNode, name: string, names: ReadonlySet<string>): string | undefined {
  if (names.has(`${name}${SIDECAR_SUFFIX}`)) return 'it has the sidecar already';
  if (labelOf(service, INJECT_LABEL) === 'disabled') return `${INJECT_LABEL} is disabled`;
  const mode = textAt(service, 'network_mode');
  return mode === undefined ? undefined : `its network_mode is ${mode}, so it has no network of its own to share`;
}

function labelOf(service: MapNode, label: string): string | undefined {
  const asMap = textAt(service, 'labels', label);
  if (asMap !== undefined) return asMap;
  for (const item of seqAt(service, 'labels')?.items ?? []) {
    const text = isScalar(item) ? String(item.value) : '';
    if (text.startsWith(`${label}=`)) return text.slice(label.length + 1);
  }
  return undefined;
}

/** The application's port: the label, else the first exposed or published one. */
function portOf(service: MapNode): string | undefined {
  const labelled = labelOf(service, 'meshwork.port');
  if (labelled !== undefined) return labelled;
  for (const list of ['expose', 'ports']) {
    for (const item of seqAt(service, list)?.items ?? []) {
      const text = isScalar(item) ? String(item.value) : textAt(item, 'target');
      const port = text === undefined ? undefined : /(?:^|:)(\d+)(?:\/tcp)?$/.exec(text)?.[1];
      if (port !== undefined) return port;
    }
  }
  return undefined;
}

function sidecarService(name: string, service: MapNode, options: InjectOptions): Record<string, unknown> {
  const port = portOf(service);
  const command = ['run', '--service', labelOf(service, 'meshwork.service') ?? name, '--control-plane', options.controlPlane];
  if (port !== undefined) command.push('--port', port);
  const version = labelOf(service, 'meshwork.version');
  if (version !== undefined) command.push('--version', version);
  return {
    image: options.image,
    command,
    network_mode: `service:${name}`,
    restart: 'unless-stopped',
    read_only: true,
    tmpfs: ['/tmp', '/var/lib/meshwork'],
    cap_drop: ['ALL'],
    security_opt: ['no-new-privileges:true'],
  };
}

function controlPlaneService(options: InjectOptions): Record<string, unknown> {
  return {
    image: options.image,
    command: [
      'control-plane',
      '--api',
      '0.0.0.0:15080',
      '--xds-tls',
      '0.0.0.0:15012',
      '--api-host',
      CONTROL_PLANE_SERVICE,
      '--data-dir',
      '/var/lib/meshwork',
    ],
    restart: 'unless-stopped',
    // In memory: a named volume would need a top-level key that the file may have already.
    tmpfs: ['/var/lib/meshwork'],
  };
}

/** Adds the variables that the service does not set itself; its own settings win. */
function addEnvironment(service: MapNode, edit: TextEdit, parent: Parameters<TextEdit['addKey']>[3]): void {
  const pair = pairOf(service, 'environment');
  if (pair === undefined) {
    edit.addKey(service, 'environment', APPLICATION_ENV, parent);
    return;
  }
  const value = pair.value;
  if (isMap(value)) {
    for (const [name, text] of Object.entries(APPLICATION_ENV))
      if (pairOf(value as MapNode, name) === undefined) edit.addKey(value as MapNode, name, text, pair);
  } else if (isSeq(value)) {
    const seq = seqAt(service, 'environment')!;
    const present = new Set(seq.items.map((item) => (isScalar(item) ? String(item.value).split('=')[0] : '')));
    const missing = Object.entries(APPLICATION_ENV).filter(([name]) => !present.has(name));
    if (missing.length > 0)
      edit.prependItems(
        seq,
        missing.map(([name, text]) => `${name}=${text}`),
      );
  } else {
    throw new InjectError(`environment must be a mapping or a list, received ${stringify(value).trim()}`);
  }
}
