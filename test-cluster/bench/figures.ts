/** Small statistics for benchmark lines. */
import { readdirSync, readFileSync } from 'node:fs';

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

/** Of a clock tick in /proc: USER_HZ is 100 on every Linux that Node runs on. */
const tickMs = 10;

/** Processor time, user's and system's, of a process and all below it: those that live, and those that have ended and were waited for (Linux; proc(5)). */
export function cpuTimeMs(pid: number): number {
  const parents = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const stat = /^\d+$/.test(name) ? statOf(Number(name)) : undefined;
    if (!stat) continue;
    const siblings = parents.get(stat.parent) ?? [];
    siblings.push(Number(name));
    parents.set(stat.parent, siblings);
  }
  const sum = (one: number): number =>
    (statOf(one)?.ticks ?? 0) * tickMs + (parents.get(one) ?? []).reduce((total, child) => total + sum(child), 0);
  return sum(pid);
}

/** Undefined for a process that has just ended. */
function statOf(pid: number): { parent: number; ticks: number } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // Behind the name, which may hold anything: state, parent, … and from the 12th on utime, stime, cutime, cstime.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { parent: Number(fields[1]), ticks: fields.slice(11, 15).reduce((total, field) => total + Number(field), 0) };
}
