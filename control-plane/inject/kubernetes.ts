/** Puts the sidecar into the pods of a Kubernetes manifest, in the text itself; what is not a workload is not touched. */
import { isMap } from 'yaml';
import type { ParsedNode } from 'yaml';
import { InjectError, TextEdit, mapAt, pairOf, parseDocuments, seqAt, textAt } from './edit.ts';
import type { MapNode, SeqNode } from './edit.ts';
import { APPLICATION_ENV, INJECT_LABEL, PROXY_NAME, SIDECAR_VOLUMES, sidecarContainer } from './template.ts';
import type { InjectOptions } from './template.ts';

export interface InjectResult {
  readonly text: string;
  /** One line per workload: what was done, or why nothing was. */
  readonly notes: readonly string[];
}

/** Where the pod template of each workload kind stands. */
const POD_PATHS: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};

/** Injects every workload of a manifest (several documents, Lists). Idempotent. Throws `InjectError` on broken YAML. */
export function injectKubernetes(text: string, file: string, options: InjectOptions): InjectResult {
  const edit = new TextEdit(text);
  const notes: string[] = [];
  for (const document of parseDocuments(text, file)) injectObject(document.contents, edit, notes, options);
  return { text: edit.changed ? edit.apply() : text, notes };
}

function injectObject(node: ParsedNode | null, edit: TextEdit, notes: string[], options: InjectOptions): void {
  if (!isMap(node)) return;
  const kind = textAt(node, 'kind') ?? '';
  if (kind === 'List') {
    for (const item of seqAt(node, 'items')?.items ?? []) injectObject(item as ParsedNode, edit, notes, options);
    return;
  }
  const path = POD_PATHS[kind];
  if (path === undefined) return;
  const label = `${kind} ${textAt(node, 'metadata', 'name') ?? '(without a name)'}`;
  const pod = path.length === 0 ? (node as MapNode) : mapAt(node, ...path);
  const why = pod === undefined ? 'it has no pod template' : reasonToSkip(node as MapNode, pod);
  if (why !== undefined || pod === undefined) {
    notes.push(`${label}: not injected: ${why}`);
    return;
  }
  injectPod(pod, edit, options);
  notes.push(`${label}: injected`);
}

function reasonToSkip(workload: MapNode, pod: MapNode): string | undefined {
  const spec = mapAt(pod, 'spec');
  if (spec === undefined || seqAt(spec, 'containers') === undefined) return 'its pod has no containers';
  for (const list of ['initContainers', 'containers']) {
    if (seqAt(spec, list)?.items.some((item) => textAt(item, 'name') === PROXY_NAME)) return 'it has the sidecar already';
  }
  for (const holder of [pod, workload]) {
    const wish = textAt(holder, 'metadata', 'labels', INJECT_LABEL) ?? textAt(holder, 'metadata', 'annotations', INJECT_LABEL);
    if (wish === 'disabled' || wish === 'false') return `${INJECT_LABEL} is ${wish}`;
    if (wish !== undefined) break;
  }
  if (textAt(spec, 'hostNetwork') === 'true') return 'it uses the host network, where every pod would share the sidecar ports';
  return undefined;
}

function injectPod(pod: MapNode, edit: TextEdit, options: InjectOptions): void {
  const specPair = pairOf(pod, 'spec')!;
  const spec = specPair.value as MapNode;
  const containers = seqAt(spec, 'containers')!;
  const ports = containers.items.flatMap((item) => portsOf(item));
  addToList(spec, 'initContainers', [sidecarContainer(options, ports)], edit, specPair);
  addToList(spec, 'volumes', SIDECAR_VOLUMES, edit, specPair);
  for (const container of containers.items) if (isMap(container)) addEnvironment(container as MapNode, edit);
  for (const container of seqAt(spec, 'initContainers')?.items ?? []) if (isMap(container)) addEnvironment(container as MapNode, edit);
}

function portsOf(container: unknown): number[] {
  const ports: number[] = [];
  for (const item of seqAt(container, 'ports')?.items ?? []) {
    const port = Number(textAt(item, 'containerPort'));
    if ((textAt(item, 'protocol') ?? 'TCP') === 'TCP' && Number.isInteger(port) && port > 0 && port < 65536) ports.push(port);
  }
  return ports;
}

/** Prepends items to a list of the map, making the list where there is none. */
function addToList(map: MapNode, key: string, items: readonly unknown[], edit: TextEdit, parent: Parameters<TextEdit['addKey']>[3]): void {
  const pair = pairOf(map, key);
  if (pair === undefined) {
    edit.addKey(map, key, items, parent);
    return;
  }
  const seq = seqAt(map, key);
  const text = textAt(map, key);
  if (seq !== undefined) edit.prependItems(seq, items);
  else if (text === undefined && !isMap(pair.value)) edit.fillEmptyList(pair, items);
  else throw new InjectError(`${key} must be a list, received ${text === undefined ? 'a mapping' : JSON.stringify(text)}`);
}

/** Adds the variables that the container does not set itself; its own settings win. */
function addEnvironment(container: MapNode, edit: TextEdit): void {
  const env: SeqNode | undefined = seqAt(container, 'env');
  const present = new Set((env?.items ?? []).map((item) => textAt(item, 'name')));
  const missing = Object.entries(APPLICATION_ENV)
    .filter(([name]) => !present.has(name))
    .map(([name, value]) => ({ name, value }));
  if (missing.length > 0) addToList(container, 'env', missing, edit, pairOf(container, 'name'));
}
