/** The injector: what it adds, what it leaves alone byte for byte, and that twice is once. */
import { test, expect, describe } from '@jest/globals';
import { parseAllDocuments, parse } from 'yaml';
import { Deployment } from 'kubernetes-models/apps/v1/Deployment';
import { Service } from 'kubernetes-models/v1/Service';
import { injectKubernetes } from './kubernetes.ts';
import { injectCompose, isCompose } from './compose.ts';
import { InjectError } from './edit.ts';
import { PROXY_NAME } from './template.ts';

const OPTIONS = { image: 'meshwork:0.1.0', controlPlane: 'meshwork-control-plane.meshwork-system.svc:15012' };
const COMPOSE = { image: 'meshwork:0.1.0', controlPlane: 'http://meshwork-control-plane:15080' };

const WEB = `# The shop's front door.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-app   # keep this name
spec:
  replicas: 2
  selector:
    matchLabels: { app: web-app }
  template:
    metadata:
      labels:
        app: web-app
    spec:
      # one container is enough
      containers:
        - name: nginx
          image: "nginx:1.27"
          ports:
            - containerPort: 80
---
apiVersion: v1
kind: Service
metadata:
  name: web-service
spec:
  type: NodePort
  selector: {app: web-app}
  ports:
    - {port: 80, targetPort: 80, nodePort: 30000}
`;

interface Container {
  name: string;
  env?: { name: string; value?: string }[];
  restartPolicy?: string;
  securityContext?: Record<string, unknown>;
}

function podSpec(text: string): { initContainers: Container[]; containers: Container[]; volumes: { name: string }[] } {
  const deployment = parseAllDocuments(text)[0]!.toJS() as { spec: { template: { spec: ReturnType<typeof podSpec> } } };
  return deployment.spec.template.spec;
}

/** The lines that were there stand there still, in order, to the byte. */
function expectOnlyInsertions(before: string, after: string): void {
  const lines = after.split('\n');
  let at = 0;
  for (const line of before.split('\n')) {
    const found = lines.indexOf(line, at);
    expect({ line, found: found >= at }).toEqual({ line, found: true });
    at = found + 1;
  }
}

describe('Kubernetes manifests', () => {
  test('a Deployment gets a native sidecar with restartPolicy Always, probes and no privileges; the Service stays as it was', () => {
    const { text, notes } = injectKubernetes(WEB, 'web.yaml', OPTIONS);

    const spec = podSpec(text);
    expect(spec.initContainers.map((container) => container.name)).toEqual([PROXY_NAME]);
    expect(spec.initContainers[0]).toMatchObject({
      restartPolicy: 'Always',
      startupProbe: {},
      readinessProbe: {},
      resources: {},
      securityContext: { runAsUser: 1337, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
    });
    expect(spec.containers[0]!.env).toContainEqual({ name: 'HTTP_PROXY', value: 'http://127.0.0.1:15001' });
    expect(text.slice(text.indexOf('---'))).toBe(WEB.slice(WEB.indexOf('---')));
    expectOnlyInsertions(WEB, text);
    expect(notes).toEqual(['Deployment web-app: injected']);
  });

  test('a second run changes nothing', () => {
    const once = injectKubernetes(WEB, 'web.yaml', OPTIONS).text;

    expect(injectKubernetes(once, 'web.yaml', OPTIONS).text).toBe(once);
  });

  test('the result passes the schema of the Kubernetes API', () => {
    const [deployment, service] = parseAllDocuments(injectKubernetes(WEB, 'web.yaml', OPTIONS).text).map(
      (document) => document.toJS() as object,
    );

    expect(() => new Deployment(deployment as never).validate()).not.toThrow();
    expect(() => new Service(service as never).validate()).not.toThrow();
  });

  test('the schema check notices a wrong type, so that passing it means something', () => {
    const deployment = parseAllDocuments(WEB.replace('replicas: 2', 'replicas: "two"'))[0]!.toJS() as object;

    expect(() => new Deployment(deployment as never).validate()).toThrow();
  });

  test.each(['StatefulSet', 'DaemonSet', 'Job', 'ReplicaSet'])('a %s is injected', (kind) => {
    expect(injectKubernetes(WEB.replace('kind: Deployment', `kind: ${kind}`), 'web.yaml', OPTIONS).notes).toEqual([
      `${kind} web-app: injected`,
    ]);
  });

  test('a Pod, a CronJob and the items of a List are injected', () => {
    const pod = 'apiVersion: v1\nkind: Pod\nmetadata: {name: solo}\nspec:\n  containers:\n  - name: app\n    image: app:1\n';
    const cron =
      'apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: nightly\nspec:\n  schedule: "0 3 * * *"\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          restartPolicy: Never\n          containers:\n            - name: job\n              image: job:1\n';
    const list = `apiVersion: v1\nkind: List\nitems:\n${pod
      .split('\n')
      .map((line, index) => (line === '' ? '' : `${index === 0 ? '- ' : '  '}${line}`))
      .join('\n')}`;

    for (const text of [pod, cron, list]) {
      const result = injectKubernetes(text, 'x.yaml', OPTIONS);
      expect(result.notes).toHaveLength(1);
      expect(result.notes[0]).toMatch(/: injected$/);
      expect(() => parse(result.text)).not.toThrow();
      expect(result.text).toContain(`name: ${PROXY_NAME}`);
      expect(injectKubernetes(result.text, 'x.yaml', OPTIONS).text).toBe(result.text);
    }
  });

  test('existing init containers, volumes and variables stay; the sidecar starts before them', () => {
    const text = WEB.replace(
      '      # one container is enough\n',
      '      initContainers:\n        - name: migrate\n          image: migrate:1\n      volumes: []\n',
    ).replace(
      '          ports:\n',
      '          env:\n            - name: HTTP_PROXY\n              value: http://corporate:3128\n          ports:\n',
    );

    const spec = podSpec(injectKubernetes(text, 'web.yaml', OPTIONS).text);

    expect(spec.initContainers.map((container) => container.name)).toEqual([PROXY_NAME, 'migrate']);
    expect(spec.volumes.map((volume) => volume.name)).toEqual(['meshwork-state', 'meshwork-token']);
    expect(spec.containers[0]!.env!.filter((variable) => variable.name === 'HTTP_PROXY')).toEqual([
      { name: 'HTTP_PROXY', value: 'http://corporate:3128' },
    ]);
  });

  test('JSON, flow style, an empty env key and Windows line ends are edited in their own style', () => {
    const json = JSON.stringify(parse(WEB.slice(0, WEB.indexOf('---'))), null, 2);
    const injected = injectKubernetes(json, 'web.json', OPTIONS).text;
    expect(
      (JSON.parse(injected) as { spec: { template: { spec: { initContainers: unknown[] } } } }).spec.template.spec.initContainers,
    ).toHaveLength(1);

    const windows = WEB.replaceAll('\n', '\r\n');
    const result = injectKubernetes(windows, 'web.yaml', OPTIONS).text;
    expect(result.replaceAll('\r\n', '')).not.toContain('\n');
    expect(podSpec(result).initContainers).toHaveLength(1);

    const emptyEnv = injectKubernetes(WEB.replace('          ports:\n', '          env:\n          ports:\n'), 'web.yaml', OPTIONS).text;
    expect(podSpec(emptyEnv).containers[0]!.env).toContainEqual({ name: 'NODE_USE_ENV_PROXY', value: '1' });
  });

  test('a label or annotation switches injection off, and the host network is left alone', () => {
    const off = WEB.replace('        app: web-app\n', '        app: web-app\n        meshwork.dev/inject: disabled\n');
    const host = WEB.replace('      # one container is enough\n', '      hostNetwork: true\n');

    expect(injectKubernetes(off, 'web.yaml', OPTIONS)).toEqual({
      text: off,
      notes: ['Deployment web-app: not injected: meshwork.dev/inject is disabled'],
    });
    expect(injectKubernetes(host, 'web.yaml', OPTIONS).text).toBe(host);
  });

  test('broken YAML is refused with file, line and column', () => {
    expect(() => injectKubernetes('kind: Pod\n  name: x: y\n', 'bad.yaml', OPTIONS)).toThrow(InjectError);
    expect(() => injectKubernetes('kind: Pod\n  name: x: y\n', 'bad.yaml', OPTIONS)).toThrow(/^bad\.yaml:\d+:\d+: not valid YAML: /);
  });
});

describe('compose files', () => {
  const SHOP = `# shop
services:
  web:
    image: web:1
    ports:
      - "8080:3000"
  ratings:
    image: ratings:1
    environment:
      LOG: debug   # loud
    expose: ["9000"]
  db:
    image: postgres:17
    labels: [meshwork.dev/inject=disabled]
volumes:
  data: {}
`;

  test('each service gets a sidecar in its network; others stay, comments included', () => {
    const { text, notes } = injectCompose(SHOP, 'compose.yaml', COMPOSE);

    const { services } = parse(text) as {
      services: Record<string, { network_mode?: string; command?: string[]; environment?: Record<string, string> }>;
    };
    expect(Object.keys(services).toSorted()).toEqual(['db', 'meshwork-control-plane', 'ratings', 'ratings-sidecar', 'web', 'web-sidecar']);
    expect(services['web-sidecar']).toMatchObject({ network_mode: 'service:web' });
    expect(services['web-sidecar']!.command).toEqual([
      'run',
      '--service',
      'web',
      '--control-plane',
      'http://meshwork-control-plane:15080',
      '--port',
      '3000',
    ]);
    expect(services['ratings-sidecar']!.command).toContain('9000');
    expect(services['ratings']!.environment).toMatchObject({ LOG: 'debug', HTTP_PROXY: 'http://127.0.0.1:15001' });
    expectOnlyInsertions(SHOP, text);
    expect(notes).toEqual([
      'service web: injected',
      'service ratings: injected',
      'service db: not injected: meshwork.dev/inject is disabled',
    ]);
  });

  test('a second run changes nothing', () => {
    const once = injectCompose(SHOP, 'compose.yaml', COMPOSE).text;

    expect(injectCompose(once, 'compose.yaml', COMPOSE).text).toBe(once);
  });

  test('a compose file is told from a manifest', () => {
    expect([isCompose(SHOP, 'compose.yaml'), isCompose(WEB, 'web.yaml')]).toEqual([true, false]);
  });
});
