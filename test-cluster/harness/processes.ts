/** Child processes with their output kept: started, awaited, ended by pid, never left behind. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';

export interface CommandResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** What tests wait for comes in time on a machine that has little else to do; it may have this much more of it, because that costs nothing where it comes. */
const patience = 10;
const pollMs = 25;
const commandTimeoutMs = 240_000;

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a process whose output is kept (the last megabyte of each stream). */
export function startProcess(command: string, args: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}) {
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const output = { stdout: '', stderr: '' };
  const keep = (name: 'stdout' | 'stderr') => (chunk: Buffer) => {
    output[name] = (output[name] + chunk.toString('utf8')).slice(-1_000_000);
  };
  child.stdout.on('data', keep('stdout'));
  child.stderr.on('data', keep('stderr'));
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      running.delete(child);
      resolve(code);
    });
  });
  ended.catch(() => running.delete(child));
  return { child, output, ended };
}

/** Runs a command to its end, with `input` on its standard input. */
export function runCommand(
  command: string,
  args: readonly string[],
  options: { input?: string | Buffer; env?: NodeJS.ProcessEnv; cwd?: string; timeoutMs?: number } = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    running.add(child);
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? commandTimeoutMs);
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.stdin.on('error', () => undefined); // it may end without reading its input
    child.once('error', reject);
    child.once('close', (code) => {
      clearTimeout(timer);
      running.delete(child);
      resolve({ code, stdout: Buffer.concat(stdout).toString('utf8'), stderr: Buffer.concat(stderr).toString('utf8') });
    });
    child.stdin.end(options.input ?? '');
  });
}

/** Whether a program is on the PATH (or in the places where Debian keeps servers). */
export function hasProgram(name: string): boolean {
  return spawnSync('sh', ['-c', 'command -v "$1"', 'sh', name], { env: { ...process.env, PATH: searchPath } }).status === 0;
}

/** PATH with the administrators' folders. */
export const searchPath = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;

/** Thrown by a probe that knows that waiting is in vain. */
export class GivenUp extends Error {
  override readonly name = 'GivenUp';
}

/**
 * Asks until `probe` answers with something, or throws. `timeoutMs` is what it takes at most on a machine that is not busy; a busy one gets ten times as much, and
 * whoever was held up for longer asks once more.
 */
export function waitFor<T>(what: string, timeoutMs: number, probe: () => Promise<T | undefined | false>): Promise<T> {
  return waitAtMost(what, timeoutMs * patience, probe);
}

/** The same where the time itself is what is judged. */
export async function waitAtMost<T>(what: string, timeoutMs: number, probe: () => Promise<T | undefined | false>): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (let isLast = false; ; ) {
    try {
      const found = await probe();
      if (found !== undefined && found !== false) return found;
    } catch (error) {
      if (error instanceof GivenUp) throw error;
      last = error;
    }
    if (isLast) break;
    await new Promise((resolve) => setTimeout(resolve, pollMs));
    isLast = performance.now() >= deadline;
  }
  throw new Error(`${what}: not within ${timeoutMs} ms${last instanceof Error ? ` (${last.message})` : ''}`);
}
