/**
 * Dovecot's ImapTest: its scripted tests and its stress mode against any IMAP server. It comes in no package (README, "ImapTest"): `STARLING_IMAPTEST` names the
 * program, else /opt/imaptest/imaptest or what is on the PATH; its scripts are expected in `tests` beside it, or in `STARLING_IMAPTEST_TESTS`.
 */
import { existsSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { corpusMessage } from './mail-corpus.js';
import { runCommand } from './processes.js';

export interface ImaptestTarget {
  /** Of IMAP over TLS; the certificate is not checked. */
  port: number;
  /** One or more, with the same password. The stress mode spreads its clients over them; scripts use the first and, where they need another, the second. */
  users: readonly string[];
  password: string;
}

export interface ScriptedOutcome {
  groups: number;
  failed: number;
  skipped: number;
  baseCommands: number;
  baseCommandsFailed: number;
  /** All that it said. */
  output: string;
}

export interface StressOutcome {
  /** Commands answered, and by their kind. */
  commands: number;
  byKind: Record<string, number>;
  commandsPerSecond: number;
  /** Its lines that begin with `Error:`. */
  errors: string[];
}

const messagesToAppend = 200;

function programPath(): string | undefined {
  const given = process.env['STARLING_IMAPTEST'];
  const onPath = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'imaptest'));
  const candidates = given === undefined ? ['/opt/imaptest/imaptest', ...onPath] : [given];
  return candidates.find((path) => existsSync(path));
}

export class Imaptest {
  private constructor(
    private readonly program: string,
    private readonly tests: string,
  ) {}

  /** Undefined where there is none on this machine, which is said in one line: it is in no registry, so that CI may go without it too. */
  static find(): Imaptest | undefined {
    const program = programPath();
    const tests = program && (process.env['STARLING_IMAPTEST_TESTS'] ?? join(dirname(realpathSync(program)), 'tests'));
    if (program && tests && existsSync(tests)) return new Imaptest(program, tests);
    process.stderr.write('skipped: imaptest not found\n');
    return undefined;
  }

  /** Runs all scripts, or those in `folder`. Throws when it does not come to an end. */
  async runScripts(target: ImaptestTarget, folder = this.tests): Promise<ScriptedOutcome> {
    const users = target.users.slice(0, 2).map((user, index) => `user${index === 0 ? '' : index + 1}=${user}`);
    // Scripts that are not through after `secs` count as failed.
    const output = await this.run(target, [...users, `test=${folder}`, 'secs=900'], 960_000);
    const groups = /^(\d+) test groups: (\d+) failed, (\d+) skipped/m.exec(output);
    const base = /^base protocol: (\d+)\/(\d+) individual commands failed/m.exec(output);
    if (!groups || !base) throw new Error(`imaptest did not finish its scripts:\n${output.slice(-4_000)}`);
    return {
      groups: Number(groups[1]),
      failed: Number(groups[2]),
      skipped: Number(groups[3]),
      baseCommands: Number(base[2]),
      baseCommandsFailed: Number(base[1]),
      output,
    };
  }

  /** So many clients for so many seconds, each doing at random what clients do, and checking the answers against all that it knows. */
  async stress(target: ImaptestTarget, { clients, seconds }: { clients: number; seconds: number }): Promise<StressOutcome> {
    const folder = mkdtempSync(join(tmpdir(), 'starling-imaptest-'));
    try {
      const userFile = join(folder, 'users');
      writeFileSync(userFile, target.users.map((user) => `${user}:${target.password}\n`).join(''), { mode: 0o600 });
      // It asks for a user even where it has a file of them.
      const whose = [`user=${target.users[0]}`, ...(target.users.length > 1 ? [`userfile=${userFile}`] : [])];
      const args = [...whose, `clients=${clients}`, `secs=${seconds},20`, 'seed=1'];
      const output = await this.run(target, args, (seconds + 240) * 1_000);
      const totals = /^Totals:\n(.+)\n(?:.*\n){2}([ \d]+)$/m.exec(output);
      if (!totals) throw new Error(`imaptest said no totals:\n${output.slice(-4_000)}`);
      const counts = totals[2]!.trim().split(/\s+/).map(Number);
      const kinds = totals[1]!.trim().split(/\s+/);
      const commands = counts.reduce((sum, count) => sum + count, 0);
      const errors = output.split('\n').filter((line) => /^(?:Error|Panic|Fatal):/.test(line));
      return {
        commands,
        byKind: Object.fromEntries(kinds.map((kind, index) => [kind, counts[index] ?? 0])),
        commandsPerSecond: commands / seconds,
        errors,
      };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** Runs it with mail to append, and answers all its output. Its exit code says only whether it had anything to complain of. */
  private async run({ port, password }: ImaptestTarget, args: readonly string[], timeoutMs: number): Promise<string> {
    const folder = mkdtempSync(join(tmpdir(), 'starling-imaptest-'));
    try {
      const mbox = join(folder, 'mbox');
      const messages = Array.from({ length: messagesToAppend }, (_, index) => corpusMessage(index).bytes);
      writeFileSync(mbox, Buffer.concat(messages.flatMap((bytes) => [Buffer.from(separator), bytes, Buffer.from('\r\n')])));
      const common = ['host=127.0.0.1', `port=${port}`, 'ssl=any-cert', `pass=${password}`, `mbox=${mbox}`];
      const { code, stdout, stderr } = await runCommand(this.program, [...common, ...args], { timeoutMs, cwd: folder });
      if (code === null) throw new Error(`imaptest was ended by a signal:\n${(stdout + stderr).slice(-4_000)}`);
      return stdout + stderr;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
}

const separator = 'From corpus@outside.test Mon Jan  7 06:00:00 2019\r\n';
