/** Rows for people: columns as wide as their widest cell, or JSON for scripts. */

/** One column: its heading, and the cell's text of a row. */
export interface Column<T> {
  readonly title: string;
  cell(row: T): string;
}

/** Renders rows as an aligned table with a heading line. No rows: only the heading. */
export function table<T>(rows: readonly T[], columns: readonly Column<T>[]): string {
  const cells = [columns.map((column) => column.title), ...rows.map((row) => columns.map((column) => column.cell(row)))];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => line[index]!.length)));
  return cells
    .map((line) => `${line.map((cell, index) => (index === line.length - 1 ? cell : cell.padEnd(widths[index]!))).join('   ')}\n`)
    .join('');
}

/** Any value as one short cell. */
export function cellText(value: unknown): string {
  if (value === undefined || value === null) return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value as string | number | boolean);
}
