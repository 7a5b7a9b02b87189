/** Pigeonhole, Dovecot's Sieve, as a second opinion: whether a script is valid, and what it does with a message. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const program = 'sieve-test';

export function hasPigeonhole(): boolean {
  // Without arguments it says how it is used.
  if (spawnSync(program, [], { stdio: 'ignore' }).error === undefined) return true;
  if (process.env.CI === 'true') throw new Error(`CI must have: ${program}`);
  process.stderr.write(`skipped: needs ${program}\n`);
  return false;
}

/** What was done, one line each, sorted; `failed` when the run went wrong; `invalid` when the script could not be compiled. */
export type Decision = string[];

export class Pigeonhole {
  readonly #folder = mkdtempSync(join(tmpdir(), 'starling-pigeonhole-'));

  constructor() {
    // It may run as another user than we do.
    chmodSync(this.#folder, 0o755);
    writeFileSync(
      join(this.#folder, 'dovecot.conf'),
      `protocols =
ssl = no
base_dir = ${this.#folder}/run
mail_location = maildir:${this.#folder}/mail
mail_uid = ${process.getuid!() || 'nobody'}
mail_gid = ${process.getgid!() || 'nogroup'}
plugin {
  sieve_extensions = +editheader +vacation-seconds
  sieve_vacation_min_period = 0
  sieve_user_email = bob@b.example
}
`,
    );
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Runs a script over a message, from ann@a.example to bob@b.example. */
  decide(script: string, message: string): Decision {
    const [scriptPath, messagePath] = [join(this.#folder, 'script.sieve'), join(this.#folder, 'message.eml')];
    writeFileSync(scriptPath, script);
    writeFileSync(messagePath, message.replace(/\r?\n/g, '\r\n'));
    const config = join(this.#folder, 'dovecot.conf');
    const addresses = ['-f', 'ann@a.example', '-a', 'bob@b.example', '-r', 'bob@b.example'];
    const { stdout, stderr } = spawnSync(program, ['-C', '-c', config, ...addresses, scriptPath, messagePath], {
      encoding: 'utf8',
    });
    if (/error: (validation|parse) failed/.test(stderr)) return ['invalid'];
    if (/final result: failed/.test(stderr)) return ['failed'];
    if (!/final result: success/.test(stderr)) throw new Error(`sieve-test has said: ${stderr}`);
    return readDecision(stdout);
  }

  isValid(script: string): boolean {
    const scriptPath = join(this.#folder, 'script.sieve');
    writeFileSync(scriptPath, script);
    const { status, error } = spawnSync('sievec', ['-c', join(this.#folder, 'dovecot.conf'), scriptPath], { encoding: 'utf8' });
    if (error) throw error;
    return status === 0;
  }
}

/** Each action begins with ` * `; what belongs to it follows, further in. */
function readDecision(output: string): Decision {
  const decision: Decision = [];
  const [performed = '', implicit = ''] = output.split('Implicit keep:');
  for (const action of performed.split(/^ \* /m).slice(1)) decision.push(readAction(action));
  for (const action of implicit.split(/^ \* /m).slice(1)) decision.push(`implicit ${readAction(action)}`);
  return decision.sort();
}

function readAction(text: string): string {
  const [head] = text.split('\n', 1);
  const stored = /^store message in folder: (.*)$/m.exec(text);
  const flags = /add IMAP flags: (.*)$/m.exec(text)?.[1]?.toLowerCase().split(' ').sort().join(' ') ?? '';
  if (stored) {
    const creates = text.includes('create mailbox if it does not exist');
    return `store ${stored[1]}${creates ? ' create' : ''}${flags && ` ${flags}`}`;
  }
  const redirected = /^redirect message to: <(.*)>$/m.exec(text);
  if (redirected) return `redirect ${redirected[1]}`;
  const rejected = /^reject message with reason: (.*)$/m.exec(text);
  if (rejected) return `reject ${rejected[1]}`;
  if (text.startsWith('send vacation message')) {
    const body = /START MESSAGE\n([\s\S]*?)\n?END MESSAGE/.exec(text)?.[1] ?? '';
    const subject = / subject : (.*)$/m.exec(text)?.[1];
    return `vacation ${/ seconds : (\d+)/.exec(text)?.[1]} ${subject === undefined ? '' : `${subject}: `}${body}`;
  }
  if (text.startsWith('send notification')) {
    const recipients = [...text.matchAll(/^ +\+ (?:To|Cc): (.*)$/gm)].map((match) => match[1]).join(',');
    return `notify ${recipients} ${/importance +: (\d)/.exec(text)?.[1]}`;
  }
  return head!;
}
