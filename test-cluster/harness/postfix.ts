/** A Postfix of the test's own, on loopback: a receiving peer that files what it gets, or one that throws it away (benchmarks). */
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { greets, maildirMessages, makeCertificate, userIds } from './mail-server.js';
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
  /** Offers STARTTLS with a certificate of its own making. */
  hasTls?: boolean;
  /** Further ports that it listens on (`portOf`), by name: what is different there, as lines of main.cf. */
  listeners?: Record<string, Record<string, string>>;
}

const smtpd = (port: number, settings: Record<string, string> = {}) => {
  const row = [`127.0.0.1:${port}`, 'inet', 'n', '-', 'n', '-', '-', 'smtpd'];
  for (const [name, value] of Object.entries(settings)) row.push(`-o { ${name} = ${value} }`);
  return row;
};

function masterServices(listeners: string[][]): string {
  const rows = [
    ...listeners,
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
    ['lmtp', 'unix', '-', '-', 'n', '-', '-', 'lmtp'],
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
  readonly #ports = new Map<string, number>();

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
    if (options.hasTls) {
      const file = join(folder, 'conf', 'tls.pem');
      await makeCertificate(file, settings.myhostname!);
      settings.smtpd_tls_chain_files = file;
      settings.smtpd_tls_security_level = 'may';
      settings.smtpd_tls_loglevel = '1';
      settings.smtp_tls_loglevel = '1';
      Object.assign(settings, options.settings);
    }
    const main = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`);
    writeFileSync(join(folder, 'conf', 'main.cf'), main.join(''));
    const listeners = [smtpd(postfix.port)];
    for (const [name, different] of Object.entries(options.listeners ?? {})) {
      const port = await freePort();
      postfix.#ports.set(name, port);
      listeners.push(smtpd(port, different));
    }
    writeFileSync(join(folder, 'conf', 'master.cf'), masterServices(listeners));
    const started = await postfix.command('start');
    if (started.code !== 0) {
      const log = postfix.log();
      rmSync(folder, { recursive: true, force: true });
      throw new Error(`Postfix did not start:\n${started.stderr}\n${log}`);
    }
    await waitFor('Postfix to listen', 10_000, () => greets(postfix.port));
    return postfix;
  }

  /** Of one of `listeners`. */
  portOf(listener: string): number {
    const port = this.#ports.get(listener);
    if (port === undefined) throw new Error(`the Postfix has no listener ${listener}`);
    return port;
  }

  private command(verb: string) {
    return runCommand('postfix', ['-c', join(this.folder, 'conf'), verb], { env: { PATH: searchPath } });
  }

  /** Messages in its Maildir, as bytes, without the trace fields that Postfix's delivery put in front. */
  messages(): Buffer[] {
    return maildirMessages(join(this.folder, 'mail', 'inbox'));
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
