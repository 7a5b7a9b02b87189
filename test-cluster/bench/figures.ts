/** Small statistics for benchmark lines. */

/** The value below which `fraction` of the sorted values lie. */
export function percentile(values: readonly number[], fraction: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))]!;
}

export const median = (values: readonly number[]): number => percentile(values, 0.5);

/** To three significant digits. */
export const round = (value: number): number => Number(value.toPrecision(3));

/** Present and peak resident memory of a process, and what of it is its own rather than mapped files, bytes (Linux). */
export function residentBytes(status: string, field: 'VmRSS' | 'VmHWM' | 'RssAnon'): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status);
  if (!match) throw new Error(`no ${field} in the process status`);
  return Number(match[1]) * 1024;
}
