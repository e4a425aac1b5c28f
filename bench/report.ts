/** The bench's output: a table for people, a chart as SVG, the machine in words. */
import { cpus, release, totalmem } from 'node:os';
import type { LoadResult } from './load.ts';

export interface Row {
  readonly scenario: string;
  readonly peer: string;
  readonly cpuUsPerRequest: number;
  readonly rssMiB: number;
  readonly saturation: LoadResult;
  fixedRate?: LoadResult;
}

export function describeMachine(): string {
  const cpu = cpus();
  return `${cpu.length} × ${cpu[0]?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.versions.node}`;
}

export function table(title: string, rows: readonly Row[]): string {
  const reference = rows.find((row) => row.peer === 'nginx');
  const lines = rows
    .toSorted((a, b) => a.cpuUsPerRequest - b.cpuUsPerRequest)
    .map((row) => {
      const ratio = reference === undefined ? '' : (row.cpuUsPerRequest / reference.cpuUsPerRequest).toFixed(2);
      const fixed = row.fixedRate;
      const rate =
        fixed === undefined
          ? ''
          : `${fixed.requestsPerSecond.toFixed(0)}/s: ${fixed.p50Ms.toFixed(2)} / ${fixed.p99Ms.toFixed(2)} / ${fixed.p999Ms.toFixed(2)}`;
      return [
        row.peer,
        row.cpuUsPerRequest.toFixed(1),
        ratio,
        row.saturation.requestsPerSecond.toFixed(0),
        (row.saturation.bytesPerSecond / 2 ** 20).toFixed(0),
        `${row.saturation.p50Ms.toFixed(2)} / ${row.saturation.p99Ms.toFixed(2)} / ${row.saturation.p999Ms.toFixed(2)}`,
        rate,
        row.rssMiB.toFixed(0),
        String(row.saturation.failed),
      ];
    });
  const head = [
    'proxy',
    'CPU µs/request',
    '× nginx',
    'requests/s',
    'MiB/s',
    'p50 / p99 / p99.9 ms',
    'at a fixed rate',
    'RSS MiB',
    'failed',
  ];
  return `\n### ${title}\n\n${[head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`;
}

/** Horizontal bars of CPU per request, one block a scenario. */
export function chart(rows: readonly Row[]): string {
  const scenarios = [...new Set(rows.map((row) => row.scenario))];
  const parts: string[] = [];
  let y = 28;
  for (const scenario of scenarios) {
    const own = rows.filter((row) => row.scenario === scenario).toSorted((a, b) => a.cpuUsPerRequest - b.cpuUsPerRequest);
    const longest = Math.max(...own.map((row) => row.cpuUsPerRequest));
    parts.push(`<text x="10" y="${y}" font-weight="600">${scenario}</text>`);
    y += 10;
    for (const row of own) {
      const width = Math.max(2, (row.cpuUsPerRequest / longest) * 420);
      parts.push(
        `<rect x="150" y="${y}" width="${width.toFixed(1)}" height="16" rx="3" class="${row.peer === 'meshwork' ? 'ours' : 'peer'}"/>`,
      );
      parts.push(
        `<text x="142" y="${y + 13}" text-anchor="end">${row.peer}</text><text x="${(156 + width).toFixed(1)}" y="${y + 13}">${row.cpuUsPerRequest.toFixed(1)}</text>`,
      );
      y += 21;
    }
    y += 26;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 ${y}" font-family="ui-sans-serif, system-ui, sans-serif" font-size="13" role="img"><title>CPU per request in microseconds, less is better</title><style>text{fill:#57606a}.ours{fill:#0969da}.peer{fill:#afb8c1}</style>${parts.join('')}</svg>\n`;
}
