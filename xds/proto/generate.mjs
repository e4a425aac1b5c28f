/**
 * Makes xds/gen: TypeScript types of the protos named in entries.txt, taken from the packages that npm installed.
 * Plain JavaScript, since `npm ci` runs it as `prepare` under whatever Node the system has. Needs no network.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const out = join(root, 'xds', 'gen');
const require = createRequire(import.meta.url);

/** A failure whose message says what to do; printed without a stack. */
class Failure extends Error {}

try {
  generate();
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`xds/proto/generate.mjs: ${error.message}`);
  process.exitCode = 1;
}

function generate() {
  const protos = packageRoot('@grpc/grpc-js-xds');
  const buf = packageRoot('@bufbuild/buf');
  const plugin = packageRoot('@bufbuild/protoc-gen-es');
  if (protos === undefined || buf === undefined || plugin === undefined) {
    // A production install has no devDependencies; what a published package carries is enough then.
    if (existsSync(join(out, 'stamp'))) return;
    throw new Failure('xds/gen is missing and the devDependencies that make it are not installed; run `npm ci` without --omit=dev');
  }
  const wanted = stamp([protos, buf, plugin]);
  if (existsSync(join(out, 'stamp')) && readFileSync(join(out, 'stamp'), 'utf8') === wanted) return;

  // Staged beside each other under a name of this process, so two runs at once never see each other's halves.
  const staging = join(root, 'build', `proto-${process.pid}`);
  const fresh = join(root, 'build', `gen-${process.pid}`);
  try {
    const paths = stage(join(protos, 'deps'), staging);
    runBuf(buf, plugin, staging, fresh);
    shareDescriptors(paths, fresh);
    writeFileSync(join(fresh, 'stamp'), wanted);
    const old = join(root, 'build', `old-${process.pid}`);
    if (existsSync(out)) renameSync(out, old);
    renameSync(fresh, out);
    rmSync(old, { recursive: true, force: true });
    console.error(`xds/gen: generated from ${paths.length} protos`);
  } finally {
    rmSync(staging, { recursive: true, force: true });
    rmSync(fresh, { recursive: true, force: true });
  }
}

/** The hash of all that decides the output: the entry list, this script, and the versions of the packages. */
function stamp(packages) {
  const hash = createHash('sha256');
  hash.update(readFileSync(join(here, 'entries.txt')));
  hash.update(readFileSync(fileURLToPath(import.meta.url)));
  for (const path of packages) hash.update(`${path.slice(root.length)}@${readJson(join(path, 'package.json')).version}\n`);
  return hash.digest('hex');
}

/** Copies the entries and everything they import to `staging`; returns their paths. */
function stage(deps, staging) {
  const importRoots = ['envoy-api', 'xds', 'googleapis', 'protoc-gen-validate'].map((name) => join(deps, name));
  const pending = entries().map((path) => ({ path, from: 'xds/proto/entries.txt' }));
  const seen = new Set();
  while (pending.length > 0) {
    const { path, from } = pending.pop();
    // The well-known types come with the compiler and with @bufbuild/protobuf.
    if (seen.has(path) || path.startsWith('google/protobuf/')) continue;
    seen.add(path);
    const source = importRoots.map((dir) => join(dir, path)).find((file) => existsSync(file));
    if (source === undefined) throw new Failure(`${from} names ${path}, which @grpc/grpc-js-xds does not ship`);
    const text = patched(path, readFileSync(source, 'utf8'));
    for (const [, imported] of text.matchAll(/^\s*import\s+(?:public\s+|weak\s+)?"([^"]+)"\s*;/gm))
      pending.push({ path: imported, from: path });
    mkdirSync(dirname(join(staging, path)), { recursive: true });
    writeFileSync(join(staging, path), text);
  }
  return [...seen].sort((a, b) => (a < b ? -1 : 1));
}

function entries() {
  const lines = readFileSync(join(here, 'entries.txt'), 'utf8').split('\n');
  return lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
}

/** The shipped validate.proto is older than the protos that use it: it lacks `ignore_empty` for strings (tag 26 upstream). */
function patched(path, text) {
  if (path !== 'validate/validate.proto' || /StringRules[\s\S]*?ignore_empty[\s\S]*?message BytesRules/.test(text)) return text;
  const marker = 'optional bool strict = 25 [default = true];';
  if (!text.includes(marker)) throw new Failure('validate.proto changed: the place for StringRules.ignore_empty was not found');
  return text.replace(marker, `${marker}\n  optional bool ignore_empty = 26;`);
}

/** Compiles once; both the generated code and what it reads at run time come from that image. */
function runBuf(buf, plugin, staging, fresh) {
  const image = join(staging, 'image.binpb');
  run(buf, ['build', staging, '-o', image, '--exclude-source-info']);
  const template = {
    version: 'v2',
    plugins: [
      {
        local: [process.execPath, join(plugin, 'bin', 'protoc-gen-es')],
        out: fresh,
        // One compiler run for all files: the default, one per folder, starts a hundred processes.
        strategy: 'all',
        opt: ['target=js+dts', 'import_extension=js', 'erasable_syntax=true'],
      },
    ],
  };
  run(buf, ['generate', image, '--template', JSON.stringify(template)]);
  copyFileSync(image, join(fresh, 'descriptors.binpb'));
}

function run(buf, args) {
  const done = spawnSync(process.execPath, [join(buf, 'bin', 'buf'), ...args], { cwd: root, encoding: 'utf8' });
  if (done.error !== undefined) throw new Failure(`buf did not start: ${done.error.message}`);
  if (done.status !== 0) throw new Failure(`buf ${args[0]} failed:\n${done.stderr}${done.stdout}`.trim());
}

/**
 * Every generated file carries its descriptor and builds a registry of all that it imports, over and over: seconds, and a hundred
 * megabytes, for this many files. So each file looks its own descriptor up in the image, where descriptors.ts reads what is used.
 * The comments stay in the .d.ts files: in the code they would only be loaded into memory.
 */
function shareDescriptors(paths, fresh) {
  for (const path of paths) {
    const file = join(fresh, path.replace(/\.proto$/, '_pb.js'));
    const up = '../'.repeat(path.split('/').length);
    const text = readFileSync(file, 'utf8');
    const own = /fileDesc\("[^"]*"(?:, \[[^\]]*\])?\)/g;
    if (text.match(own)?.length !== 1) throw new Failure(`protoc-gen-es writes another form now: no single fileDesc in ${path}`);
    const shared = text
      .replace(own, `fileOf(${JSON.stringify(path)})`)
      .replace(/^import \{ file_\w+(?:, file_\w+)* \} from "[^"]*";\n/gm, '')
      .replace(/^import \{([^}]*)\} from "@bufbuild\/protobuf\/codegenv2";$/m, (_line, names) => importLine(names, up))
      .replace(/^\/\*\*\n(?: \*.*\n)+/gm, '');
    if (/\bfileDesc\b|\bfile_google_protobuf/.test(shared))
      throw new Failure(`protoc-gen-es writes another form now: imports are left in ${path}`);
    writeFileSync(file, shared);
  }
}

function importLine(names, up) {
  const kept = names
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== 'fileDesc' && name !== '');
  const own = `import { fileOf } from "${up}proto/descriptors.ts";`;
  return kept.length === 0 ? own : `import { ${kept.join(', ')} } from "@bufbuild/protobuf/codegenv2";\n${own}`;
}

/** The folder of an installed package, or undefined. */
function packageRoot(name) {
  for (const dir of require.resolve.paths(name) ?? []) {
    if (existsSync(join(dir, name, 'package.json'))) return join(dir, name);
  }
  return undefined;
}

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}
