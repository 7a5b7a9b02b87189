/** Docker and Compose on the command line: each call is one command, whose words are quoted when it fails. */
import { type ChildProcess, spawn } from 'node:child_process';
import { runCommand } from '../harness/processes.js';

const longMs = 30 * 60_000;

/** Runs a command to its end and answers its standard output. Throws with what it said last. */
export async function run(command: string, args: readonly string[], options: { env?: NodeJS.ProcessEnv; cwd?: string } = {}) {
  const { code, stdout, stderr } = await runCommand(command, args, { ...options, timeoutMs: longMs });
  if (code === 0) return stdout;
  const words = `${stdout}\n${stderr}`.trim().split('\n').slice(-15).join('\n');
  throw new Error(`${command} ${args.slice(0, 4).join(' ')} … ended with ${code}:\n${words}`);
}

export const docker = (...args: string[]): Promise<string> => run('docker', args);

/** `producer | consumer`, both to their end. Throws with the last words of both. */
export async function pipe(producer: readonly string[], consumer: readonly string[]): Promise<void> {
  const from = spawn(producer[0]!, producer.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  const to = spawn(consumer[0]!, consumer.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  const listen = (chunk: Buffer) => {
    said = (said + chunk.toString('utf8')).slice(-100_000);
  };
  for (const stream of [from.stderr, to.stdout, to.stderr]) stream.on('data', listen);
  to.stdin.on('error', () => undefined); // it ended early: its exit code says so
  from.stdout.pipe(to.stdin);
  const codes = await Promise.all([exitOf(from), exitOf(to)]);
  if (codes.every((code) => code === 0)) return;
  const words = said.trim().split('\n').slice(-15).join('\n');
  throw new Error(`${producer[0]} | ${consumer.slice(0, 2).join(' ')} ended with ${codes.join(', ')}:\n${words}`);
}

function exitOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
}

export async function hasImage(name: string): Promise<boolean> {
  return (await runCommand('docker', ['image', 'inspect', name])).code === 0;
}

/** docker-compose where it is installed, else the plugin of docker. */
async function composeCommand(): Promise<string[]> {
  const alone = await runCommand('docker-compose', ['version']).catch(() => undefined);
  return alone?.code === 0 ? ['docker-compose'] : ['docker', 'compose'];
}

/** One project of Compose. */
export class ComposeProject {
  private constructor(
    private readonly command: readonly string[],
    private readonly env: NodeJS.ProcessEnv,
    private readonly cwd: string,
  ) {}

  static async open(name: string, files: readonly string[], env: NodeJS.ProcessEnv, cwd: string): Promise<ComposeProject> {
    const command = [...(await composeCommand()), '-p', name, ...files.flatMap((file) => ['-f', file])];
    return new ComposeProject(command, env, cwd);
  }

  compose(...args: string[]): Promise<string> {
    const [command, ...before] = this.command;
    return run(command!, [...before, ...args], { env: this.env, cwd: this.cwd });
  }

  /** The id of a service's container, running or not. */
  async container(service: string): Promise<string> {
    const id = (await this.compose('ps', '-q', '-a', service)).trim();
    if (!/^[0-9a-f]{12,}$/.test(id)) throw new Error(`${service} has no container`);
    return id;
  }
}
