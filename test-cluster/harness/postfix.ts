/** A Postfix of the test's own, on loopback: a receiving peer that files what it gets, or one that throws it away (benchmarks). */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { runCommand, searchPath, waitFor } from './processes.js';

export interface PostfixOptions {
  /** Domain that it takes mail for. */
  domain: string;
  /** What becomes of it: files in a Maildir, or nothing. */
  delivery: 'maildir' | 'discard';
  /** Parent of its folder; default the system's temporary one. */
  folder?: string;
  /** Further lines of main.cf. */
  settings?: Record<string, string>;
}

async function userIds(name: string): Promise<{ uid: number; gid: number }> {
  const { stdout } = await runCommand('getent', ['passwd', name]);
  const fields = stdout.split(':');
  if (fields.length < 4) throw new Error(`no user ${name} on this machine`);
  return { uid: Number(fields[2]), gid: Number(fields[3]) };
}

function masterServices(port: number): string {
  const rows = [
    [`127.0.0.1:${port}`, 'inet', 'n', '-', 'n', '-', '-', 'smtpd'],
    ['pickup', 'unix', 'n', '-', 'n', '60', '1', 'pickup'],
    ['cleanup', 'unix', 'n', '-', 'n', '-', '0', 'cleanup'],
    ['qmgr', 'unix', 'n', '-', 'n', '300', '1', 'qmgr'],
    ['tlsmgr', 'unix', '-', '-', 'n', '1000?', '1', 'tlsmgr'],
    ['rewrite', 'unix', '-', '-', 'n', '-', '-', 'trivial-rewrite'],
    ['bounce', 'unix', '-', '-', 'n', '-', '0', 'bounce'],
    ['defer', 'unix', '-', '-', 'n', '-', '0', 'bounce'],
    ['trace', 'unix', '-', '-', 'n', '-', '0', 'bounce'],
    ['verify', 'unix', '-', '-', 'n', '-', '1', 'verify'],
    ['flush', 'unix', 'n', '-', 'n', '1000?', '0', 'flush'],
    ['proxymap', 'unix', '-', '-', 'n', '-', '-', 'proxymap'],
    ['smtp', 'unix', '-', '-', 'n', '-', '-', 'smtp'],
    ['showq', 'unix', 'n', '-', 'n', '-', '-', 'showq'],
    ['error', 'unix', '-', '-', 'n', '-', '-', 'error'],
    ['retry', 'unix', '-', '-', 'n', '-', '-', 'error'],
    ['discard', 'unix', '-', '-', 'n', '-', '-', 'discard'],
    ['virtual', 'unix', '-', 'n', 'n', '-', '-', 'virtual'],
    ['anvil', 'unix', '-', '-', 'n', '-', '1', 'anvil'],
    ['scache', 'unix', '-', '-', 'n', '-', '1', 'scache'],
    ['postlog', 'unix-dgram', 'n', '-', 'n', '-', '1', 'postlogd'],
  ];
  return `${rows.map((row) => row.join(' ')).join('\n')}\n`;
}

export class Postfix {
  private constructor(
    private readonly folder: string,
    readonly port: number,
    readonly domain: string,
  ) {}

  static async start(options: PostfixOptions): Promise<Postfix> {
    const folder = mkdtempSync(join(options.folder ?? tmpdir(), 'starling-postfix-'));
    chmodSync(folder, 0o755);
    const postfix = new Postfix(folder, await freePort(), options.domain);
    const owner = await userIds('postfix');
    for (const name of ['conf', 'spool', 'data', 'mail']) mkdirSync(join(folder, name));
    for (const name of ['data', 'mail']) chownSync(join(folder, name), owner.uid, owner.gid);
    const settings: Record<string, string> = {
      compatibility_level: '3.6',
      queue_directory: join(folder, 'spool'),
      data_directory: join(folder, 'data'),
      maillog_file: join(folder, 'log'),
      maillog_file_prefixes: folder,
      myhostname: `mx.${options.domain}`,
      mydestination: '',
      mynetworks: '127.0.0.0/8',
      inet_interfaces: '127.0.0.1',
      inet_protocols: 'ipv4',
      alias_maps: '',
      alias_database: '',
      smtputf8_enable: 'yes',
      virtual_mailbox_domains: options.domain,
      virtual_mailbox_base: join(folder, 'mail'),
      virtual_mailbox_maps: 'static:inbox/',
      virtual_minimum_uid: '1',
      virtual_uid_maps: `static:${owner.uid}`,
      virtual_gid_maps: `static:${owner.gid}`,
      virtual_transport: options.delivery === 'maildir' ? 'virtual' : 'discard',
      smtpd_relay_restrictions: 'permit_auth_destination,reject',
      smtpd_client_connection_count_limit: '0',
      smtpd_client_connection_rate_limit: '0',
      smtpd_peername_lookup: 'no',
      message_size_limit: '60000000',
      virtual_mailbox_limit: '0',
      ...options.settings,
    };
    const main = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`);
    writeFileSync(join(folder, 'conf', 'main.cf'), main.join(''));
    writeFileSync(join(folder, 'conf', 'master.cf'), masterServices(postfix.port));
    const started = await postfix.command('start');
    if (started.code !== 0) {
      const log = postfix.log();
      rmSync(folder, { recursive: true, force: true });
      throw new Error(`Postfix did not start:\n${started.stderr}\n${log}`);
    }
    await waitFor('Postfix to listen', 10_000, () => postfix.answers());
    return postfix;
  }

  private command(verb: string) {
    return runCommand('postfix', ['-c', join(this.folder, 'conf'), verb], { env: { PATH: searchPath } });
  }

  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = createConnection(this.port, '127.0.0.1');
      socket.once('data', () => {
        socket.end('QUIT\r\n');
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
  }

  /** Messages in its Maildir, as bytes, without the trace fields that Postfix's delivery put in front. */
  messages(): Buffer[] {
    const inbox = join(this.folder, 'mail', 'inbox', 'new');
    if (!existsSync(inbox)) return [];
    return readdirSync(inbox).map((name) => readFileSync(join(inbox, name)));
  }

  log(): string {
    const file = join(this.folder, 'log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  async stop(): Promise<void> {
    await this.command('stop');
    rmSync(this.folder, { recursive: true, force: true });
  }
}
