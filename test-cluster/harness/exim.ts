/**
 * An Exim of the test's own, on loopback: a second opinion beside Postfix. Packages of two mail servers exclude one another, so Exim's is only unpacked
 * (`STARLING_EXIM`, or /opt/exim); its user must exist.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { greets, maildirMessages, makeCertificate, userIds } from './mail-server.js';
import { freePort } from './ports.js';
import { waitFor } from './processes.js';

const user = 'Debian-exim';

/** Where Exim is; undefined where it is not. */
export function eximProgram(): string | undefined {
  const program = process.env.STARLING_EXIM ?? '/opt/exim/usr/sbin/exim4';
  return existsSync(program) ? program : undefined;
}

export interface EximOptions {
  /** Domain that it files mail for. */
  domain: string;
  /** Domains that it passes on over SMTP, or over LMTP, to these ports of loopback. */
  relays: readonly { domain: string; protocol: 'smtp' | 'lmtp'; port: number }[];
}

function configuration(folder: string, port: number, { domain, relays }: EximOptions): string {
  const relayed = relays.map((relay) => relay.domain).join(' : ');
  const routers = relays.map(
    (relay, index) => `relay${index}:
  driver = manualroute
  domains = ${relay.domain}
  transport = over_${relay.protocol}${index}
  route_list = * 127.0.0.1
  self = send
`,
  );
  const transports = relays.map(
    (relay, index) => `over_${relay.protocol}${index}:
  driver = smtp
  protocol = ${relay.protocol}
  port = ${relay.port}
  allow_localhost
  hosts_require_tls = ${relay.protocol === 'smtp' ? '*' : ''}
  hosts_try_chunking = *
`,
  );
  return `primary_hostname = mx.${domain}
exim_path = ${eximProgram()}
deliver_drop_privilege = true
keep_environment =
exim_user = ${user}
exim_group = ${user}
never_users =
spool_directory = ${folder}/spool
log_file_path = ${folder}/log/%slog
pid_file_path = ${folder}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = ${port}
domainlist local_domains = ${domain}
domainlist relayed = ${relayed}
acl_smtp_rcpt = acl_rcpt
acl_smtp_predata = acl_data
acl_smtp_data = acl_data
tls_advertise_hosts = *
tls_certificate = ${folder}/tls.pem
tls_privatekey = ${folder}/tls.pem
dsn_advertise_hosts = *
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
pipelining_connect_advertise_hosts = *
host_lookup =
rfc1413_hosts =
queue_run_in_order = false
bounce_return_body = true
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
log_selector = +tls_cipher +smtp_protocol_error +smtp_syntax_error +received_recipients

begin acl
acl_rcpt:
  accept domains = +local_domains : +relayed
  deny message = relay not permitted
acl_data:
  accept

begin routers
${routers.join('')}here:
  driver = accept
  domains = +local_domains
  transport = filed

begin transports
${transports.join('')}filed:
  driver = appendfile
  directory = ${folder}/mail/inbox
  maildir_format
  create_directory
  delivery_date_add
  envelope_to_add
  return_path_add
  user = ${user}
  group = ${user}

begin retry
* * F,1h,1m
`;
}

export class Exim {
  private constructor(
    private readonly folder: string,
    private readonly process: ChildProcess,
    readonly port: number,
  ) {}

  static async start(options: EximOptions): Promise<Exim> {
    const folder = mkdtempSync(join(tmpdir(), 'starling-exim-'));
    chmodSync(folder, 0o755);
    const owner = await userIds(user);
    for (const name of ['spool', 'log', 'mail']) {
      mkdirSync(join(folder, name));
      chownSync(join(folder, name), owner.uid, owner.gid);
    }
    await makeCertificate(join(folder, 'tls.pem'), `mx.${options.domain}`);
    chownSync(join(folder, 'tls.pem'), owner.uid, owner.gid);
    const port = await freePort();
    const file = join(folder, 'exim.conf');
    writeFileSync(file, configuration(folder, port, options), { mode: 0o644 });
    // In the foreground, with a queue runner every ten seconds for what had to wait.
    const child = spawn(eximProgram()!, ['-C', file, '-bdf', '-q10s'], { stdio: ['ignore', 'ignore', 'pipe'] });
    let complaint = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (complaint += text));
    const exim = new Exim(folder, child, port);
    try {
      await waitFor('Exim to listen', 10_000, async () => {
        if (child.exitCode !== null) throw new Error(`Exim ended with ${child.exitCode}`);
        return greets(port);
      });
    } catch (error) {
      const log = exim.log();
      await exim.stop();
      throw new Error(`Exim did not start: ${complaint}\n${log}`, { cause: error });
    }
    return exim;
  }

  /** Messages in its Maildir, as bytes. */
  messages(): Buffer[] {
    return maildirMessages(join(this.folder, 'mail', 'inbox'));
  }

  log(): string {
    const file = join(this.folder, 'log', 'mainlog');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  async stop(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const ended = new Promise((resolve) => this.process.once('exit', resolve));
      this.process.kill('SIGTERM');
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
