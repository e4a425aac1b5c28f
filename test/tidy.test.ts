/** Taste that a machine can check: who may import whom, which calls go through an argument, how long files and functions get. */
import { test, expect } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const FILE_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;

interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

function sourceFiles(): SourceFile[] {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '--', '*.ts', '*.mjs'], { cwd: ROOT, encoding: 'utf8' });
  const paths = [...new Set(listed.split('\n').filter((path) => path !== ''))];
  return paths.flatMap((path) => {
    try {
      const text = readFileSync(join(ROOT, path), 'utf8');
      return [{ path, text, lines: text.split('\n') }];
    } catch (error) {
      // A file that git still lists and that was deleted in the work tree.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  });
}

const FILES = sourceFiles();
const isTest = (path: string): boolean => path.endsWith('.test.ts') || path.startsWith('test/') || path.startsWith('bench/');

/** What each top folder may import of ours, beside itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  xds: ['lib'],
  certs: ['lib'],
  proxy: ['lib', 'xds', 'certs'],
  'control-plane': ['lib', 'xds', 'certs'],
  cli: ['lib', 'xds', 'certs', 'proxy', 'control-plane'],
  dashboard: [],
  docs: ['lib', 'xds', 'certs', 'proxy', 'control-plane', 'cli'],
  examples: ['lib', 'xds', 'certs', 'proxy', 'control-plane', 'cli'],
  bench: ['lib', 'xds', 'certs', 'proxy', 'control-plane', 'cli', 'test'],
  test: ['lib', 'xds', 'certs', 'proxy', 'control-plane', 'cli', 'bench', 'examples'],
};

function importsOf(file: SourceFile): string[] {
  const found = [
    ...file.text.matchAll(/(?:^|\n)\s*(?:import|export)[^'"\n;]*?(?:\n[^'"\n;]*?)*?from\s+['"](\.[^'"]+)['"]/g),
    ...file.text.matchAll(/import\(\s*['"](\.[^'"]+)['"]\s*\)/g),
  ];
  return found.map((match) => normalize(join(dirname(file.path), match[1]!)));
}

test('imports go in one direction: lib, then xds and certs, then a plane, then the command line', () => {
  const wrong: string[] = [];
  for (const file of FILES) {
    const top = file.path.split('/')[0]!;
    const allowed = MAY_IMPORT[top];
    if (allowed === undefined) continue;
    for (const target of importsOf(file)) {
      const targetTop = target.split('/')[0]!;
      const inTest = isTest(file.path) && (targetTop === 'test' || targetTop === 'xds' || targetTop === 'lib');
      if (targetTop !== top && !allowed.includes(targetTop) && !inTest) wrong.push(`${file.path} imports ${target}`);
    }
  }

  expect(wrong).toEqual([]);
});

test('generated protobuf code is imported only inside xds/', () => {
  const wrong = FILES.filter((file) => !file.path.startsWith('xds/') && importsOf(file).some((target) => target.startsWith('xds/gen'))).map(
    (file) => file.path,
  );

  expect(wrong).toEqual([]);
});

/** Calls that hide time, chance or failure, with what to use instead. */
const BANNED: readonly { readonly pattern: RegExp; readonly instead: string }[] = [
  { pattern: /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(/, instead: 'take a Clock as an argument (lib/clock.ts)' },
  { pattern: /\bMath\.random\(/, instead: 'take a Random as an argument (lib/random.ts)' },
  { pattern: /(?<![.\w])set(?:Timeout|Interval)\((?!\))/, instead: 'use clock.after (lib/clock.ts)' },
  {
    pattern: /\.pipe\((?!sink|.*\bsink\b)(?!new|this|\{)/,
    instead: 'use stream.pipeline or Body.pipe with a BodySink: pipe() loses errors',
  },
  { pattern: /\benum \w+ \{|\bnamespace \w+ \{/, instead: 'use a union of literals: only erasable TypeScript runs without a build' },
  { pattern: /\b(?:TODO|FIXME|XXX)\b/, instead: 'do it, or say in the docs that it is left out' },
];

test('time, chance and failure come as arguments outside lib/ and the tests', () => {
  const wrong: string[] = [];
  for (const file of FILES) {
    // Examples are programs of users: they do what a user would.
    if (file.path.startsWith('lib/') || file.path.startsWith('examples/') || isTest(file.path)) continue;
    file.lines.forEach((line, index) => {
      const code = line.replace(/^\s*(?:\/\/|\*|\/\*).*$/, '');
      for (const ban of BANNED) if (ban.pattern.test(code)) wrong.push(`${file.path}:${index + 1}: ${code.trim()} -- ${ban.instead}`);
    });
  }

  expect(wrong).toEqual([]);
});

test(`no file is longer than ${FILE_LINES_MAX} lines`, () => {
  const wrong = FILES.filter((file) => !isTest(file.path) && file.lines.length > FILE_LINES_MAX && file.path !== 'xds/snapshot.ts').map(
    (file) => `${file.path}: ${file.lines.length} lines`,
  );

  expect(wrong).toEqual([]);
});

test(`no function is longer than ${FUNCTION_LINES_MAX} lines`, () => {
  const wrong: string[] = [];
  for (const file of FILES) {
    if (isTest(file.path)) continue;
    const open: { indent: string; line: number }[] = [];
    file.lines.forEach((line, index) => {
      const opens =
        /^(\s*)(?:export )?(?:async )?(?:function\b|(?:#|static |async |get |set )*\w+\([^)]*\)[^;={]*\{$|const \w+ = (?:async )?\([^)]*\)[^;]*=> \{$).*\{$/.exec(
          line,
        );
      if (opens !== null && !/^\s*(?:if|for|while|switch|catch|return)\b/.test(line)) open.push({ indent: opens[1]!, line: index });
      const closes = /^(\s*)\}[;,)]*$/.exec(line);
      const last = open.at(-1);
      if (closes !== null && last !== undefined && closes[1] === last.indent) {
        open.pop();
        // A factory stands in for a class: its methods count, not the sum of them.
        const isFactory = /function create\w*\(/.test(file.lines[last.line]!);
        if (!isFactory && index - last.line + 1 > FUNCTION_LINES_MAX)
          wrong.push(`${file.path}:${last.line + 1}: ${index - last.line + 1} lines`);
      }
    });
  }

  expect(wrong).toEqual([]);
});

test('every source file opens with the sentence that would be its entry in a table of contents', () => {
  const wrong = FILES.filter((file) => !isTest(file.path) && !/^(?:#![^\n]*\n)?(?:\/\*\*|\/\/)\s*(?:\*\s*)?\S/.test(file.text)).map(
    (file) => file.path,
  );

  expect(wrong).toEqual([]);
});

test('the project speaks of the project alone', () => {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], { cwd: ROOT, encoding: 'utf8' })
    .split('\n')
    .filter((path) => path !== '' && path !== 'test/tidy.test.ts');
  const wrong = listed.filter((path) => {
    try {
      return /\/work\/(?:main|shared|\.library)|registry\.npmjs\.org/.test(readFileSync(join(ROOT, path), 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'EISDIR') return false;
      throw error;
    }
  });

  expect(wrong).toEqual([]);
});
