/**
 * Debian's Dovecot 2.3 of the run's own, on loopback: its configuration, users, mail and sockets are all in one folder. Set up for what it does best (mdbox, caches filled
 * when mail is saved, full-text search where its plug-in is installed), and as durable as it comes (fsync as in its defaults). Needs root, as Dovecot does.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { type CommandResult, GivenUp, hasProgram, runCommand, searchPath, startProcess, waitFor } from './processes.js';

export interface DovecotOptions {
  /** Of every user: any name may log in. */
  password?: string;
  /** Parent of its folder; default the system's temporary one. */
  folder?: string;
  /** Clients that may be connected at once, each of which has a process. Default 200. */
  maxClients?: number;
  /** Whether its full-text plug-in answers searches, where it is installed; as it is set up here, it finds parts of words only from six letters on. */
  hasFullText?: boolean;
}

const fullTextPlugin = '/usr/lib/dovecot/modules/lib21_fts_xapian_plugin.so';
const stopWithinMs = 20_000;

/** What is wanted of a message again and again: kept beside the index instead of being read from the mail. */
const cachedFields = [
  'flags',
  'date.sent',
  'date.received',
  'date.save',
  'size.virtual',
  'size.physical',
  'imap.envelope',
  'imap.body',
  'imap.bodystructure',
  'mime.parts',
  'guid',
  ...['date', 'from', 'to', 'cc', 'bcc', 'subject', 'message-id', 'in-reply-to', 'references', 'sender', 'reply-to'].map(
    (name) => `hdr.${name}`,
  ),
];

interface Layout {
  folder: string;
  ports: { imap: number; imaps: number };
  password: string;
  maxClients: number;
  hasFullText: boolean;
  owner: number;
}

function configuration({ folder, ports, password, maxClients, hasFullText, owner }: Layout): string {
  const plugins = hasFullText
    ? `mail_plugins = fts fts_xapian
plugin {
  fts = xapian
  fts_xapian = partial=6 full=20 verbose=0
  fts_enforced = yes
  fts_autoindex = no
}
service indexer-worker {
  vsz_limit = 2G
}
`
    : '';
  return `base_dir = ${folder}/run
state_dir = ${folder}/state
log_path = ${folder}/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <${folder}/certificate.pem
ssl_key = <${folder}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_cache_size = 1M
mail_location = mdbox:~/mdbox
mail_cache_fields = ${cachedFields.join(' ')}
mail_max_userip_connections = 0
first_valid_uid = ${owner}
default_vsz_limit = 2G
default_process_limit = ${maxClients + 100}
default_client_limit = ${maxClients * 4 + 1000}
passdb {
  driver = static
  args = password=${password}
}
userdb {
  driver = static
  args = uid=mail gid=mail home=${folder}/mail/%n
}
namespace inbox {
  inbox = yes
  separator = /
}
service imap-login {
  service_count = 0
  process_min_avail = 2
  inet_listener imap {
    port = ${ports.imap}
  }
  inet_listener imaps {
    port = ${ports.imaps}
    ssl = yes
  }
}
service imap {
  process_limit = ${maxClients}
}
${plugins}`;
}

function idOf(user: string, which: '-u' | '-g'): number {
  const { status, stdout } = spawnSync('id', [which, user], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`no user ${user} on this machine`);
  return Number(stdout);
}

export class Dovecot {
  private constructor(
    private readonly folder: string,
    readonly ports: { imap: number; imaps: number },
    readonly password: string,
    private running: ReturnType<typeof startProcess>,
  ) {}

  /** Whether this machine can start one. */
  static get isHere(): boolean {
    return process.getuid?.() === 0 && hasProgram('dovecot') && existsSync('/usr/lib/dovecot/imap');
  }

  /** Whether SEARCH TEXT and BODY are answered from an index. */
  static get hasFullText(): boolean {
    return existsSync(fullTextPlugin);
  }

  static get version(): string | undefined {
    const { status, stdout } = spawnSync('dovecot', ['--version'], {
      encoding: 'utf8',
      env: { ...process.env, PATH: searchPath },
    });
    return status === 0 ? stdout.trim() : undefined;
  }

  /** Starts one and waits until it greets. */
  static async start(options: DovecotOptions = {}): Promise<Dovecot> {
    const folder = mkdtempSync(join(options.folder ?? tmpdir(), 'starling-dovecot-'));
    try {
      chmodSync(folder, 0o755); // its login processes run as another user
      for (const name of ['run', 'state', 'mail']) mkdirSync(join(folder, name));
      const owner = idOf('mail', '-u');
      chownSync(join(folder, 'mail'), owner, idOf('mail', '-g'));
      const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'];
      const files = ['-keyout', join(folder, 'key.pem'), '-out', join(folder, 'certificate.pem')];
      const kind = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
      const made = await runCommand('openssl', [...kind, ...files, ...subject]);
      if (made.code !== 0) throw new Error(`openssl: ${made.stderr}`);
      const ports = { imap: await freePort(), imaps: await freePort() };
      const password = options.password ?? 'correct-horse-battery';
      const hasFullText = (options.hasFullText ?? false) && Dovecot.hasFullText;
      const layout = { folder, ports, password, maxClients: options.maxClients ?? 200, hasFullText, owner };
      writeFileSync(join(folder, 'dovecot.conf'), configuration(layout));
      const dovecot = new Dovecot(folder, ports, password, Dovecot.launch(folder));
      await dovecot.listening();
      return dovecot;
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  private static launch(folder: string): ReturnType<typeof startProcess> {
    return startProcess('dovecot', ['-F', '-c', join(folder, 'dovecot.conf')], { env: { PATH: searchPath } });
  }

  private async listening(): Promise<void> {
    let ended: number | null | undefined;
    const { running } = this;
    void running.ended.then((code) => {
      ended = code;
    });
    try {
      await waitFor('Dovecot to greet', 20_000, async () => {
        if (ended !== undefined) throw new GivenUp(`Dovecot ended with ${ended}`);
        return this.greets();
      });
    } catch (error) {
      const said = `${running.output.stderr}\n${this.log().slice(-4000)}`;
      await this.endProcesses();
      throw new Error(`${(error as Error).message}\n${said}`);
    }
  }

  private greets(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.ports.imap, '127.0.0.1');
      socket.once('data', () => {
        resolve(true);
        socket.destroy();
      });
      socket.once('error', () => resolve(false));
    });
  }

  /** Of its master: all the others are its children. */
  get pid(): number {
    return this.running.child.pid!;
  }

  /** `doveadm` against this server's mail. Throws when it fails. */
  async doveadm(args: readonly string[], timeoutMs = 60_000): Promise<CommandResult> {
    const options = { env: { PATH: searchPath }, timeoutMs };
    const result = await runCommand('doveadm', ['-c', join(this.folder, 'dovecot.conf'), ...args], options);
    if (result.code !== 0) throw new Error(`doveadm ${args.join(' ')} ended with ${result.code}: ${result.stderr}`);
    return result;
  }

  /** Brings the full-text index of a mailbox up to date. */
  async index(user: string, mailbox = 'INBOX', timeoutMs = 3_600_000): Promise<void> {
    await this.doveadm(['index', '-u', user, mailbox], timeoutMs);
  }

  /** Pids of its processes that run `/usr/lib/dovecot/NAME`, such as `imap`. */
  processes(name: string): number[] {
    const { stdout } = spawnSync('ps', ['-o', 'pid=,comm=', '--ppid', String(this.pid)], { encoding: 'utf8' });
    const rows = stdout.split('\n').map((line) => line.trim().split(/\s+/));
    return rows.filter((row) => row[1] === name).map((row) => Number(row[0]));
  }

  log(): string {
    const file = join(this.folder, 'log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** Ended and started again on the same mail: nothing of it is in memory any more. */
  async restart(): Promise<void> {
    await this.endProcesses();
    this.running = Dovecot.launch(this.folder);
    await this.listening();
  }

  /** SIGTERM to the master, which ends its children; without effect in time: SIGKILL. */
  private async endProcesses(): Promise<void> {
    const { child, ended } = this.running;
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), stopWithinMs);
    await ended.catch(() => undefined);
    clearTimeout(timer);
  }

  async stop(): Promise<void> {
    await this.endProcesses();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
