/** A Maildir that mbsync keeps, over one server after another: whatever a move of the store has changed for a client shows as a change here. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { servedCertificate } from './clients.js';
import { startProcess } from './processes.js';

export class MbsyncMirror {
  private readonly folder = mkdtempSync(join(tmpdir(), 'starling-mirror-'));

  /** `Pull` leaves the server as it is; `All` brings changes, new mail and removals over in both directions. */
  constructor(
    private readonly user: string,
    private readonly password: string,
    private readonly direction: 'Pull' | 'All' = 'Pull',
  ) {
    mkdirSync(join(this.folder, 'mail'));
  }

  /**
   * Brings over everything with the server behind an IMAPS port: new mail, flags, removals. Throws what mbsync says when it can't, which it also does over a
   * changed UIDVALIDITY.
   */
  async pull(port: number): Promise<void> {
    const { ended, output } = await this.begin(port);
    const code = await ended;
    if (code !== 0) throw new Error(`mbsync ended with ${code}: ${output.stdout}${output.stderr}`);
  }

  /** The same, for one who wants to end it before its time. */
  async begin(port: number): Promise<ReturnType<typeof startProcess>> {
    const certificate = join(this.folder, 'certificate.pem');
    writeFileSync(certificate, await servedCertificate(port));
    const both = this.direction === 'All';
    const settings = [
      'IMAPAccount node',
      'Host 127.0.0.1',
      `Port ${port}`,
      `User ${this.user}`,
      `Pass ${this.password}`,
      'SSLType IMAPS',
      `CertificateFile ${certificate}`,
      'Timeout 120',
      '',
      'IMAPStore far',
      'Account node',
      '',
      'MaildirStore near',
      `Path ${this.folder}/mail/`,
      `Inbox ${this.folder}/mail/INBOX`,
      'SubFolders Verbatim',
      '',
      'Channel all',
      'Far :far:',
      'Near :near:',
      'Patterns *',
      `Create ${both ? 'Both' : 'Near'}`,
      `Expunge ${both ? 'Both' : 'Near'}`,
      `Sync ${this.direction}`,
      'SyncState *',
      '',
    ];
    const file = join(this.folder, 'mbsyncrc');
    writeFileSync(file, settings.join('\n'), { mode: 0o600 });
    return startProcess('mbsync', ['-c', file, 'all'], { env: { HOME: this.folder } });
  }

  /** The folder with `cur`, `new` and `tmp` of a mailbox. */
  maildir(mailbox: string): string {
    return join(this.folder, 'mail', mailbox);
  }

  /**
   * Every message as one line: mailbox, UID, flags, digest of the bytes. mbsync keeps the UID in the message's file name or in its state, which is here
   * line by line, UIDVALIDITY included.
   */
  contents(): string[] {
    const lines: string[] = [];
    const root = join(this.folder, 'mail');
    for (const name of readdirSync(root, { recursive: true, withFileTypes: true })) {
      if (!name.isFile() || name.name === '.uidvalidity' || name.name.endsWith('.lock')) continue;
      const bytes = readFileSync(join(name.parentPath, name.name));
      const place = name.parentPath.slice(root.length);
      if (name.name.startsWith('.mbsyncstate'))
        lines.push(
          ...bytes
            .toString()
            .split('\n')
            .map((line) => `${place} state ${line}`),
        );
      else lines.push(`${place}/${name.name} ${createHash('sha256').update(bytes).digest('hex')}`);
    }
    return lines.sort();
  }

  get messageCount(): number {
    return this.contents().filter((line) => /^\/[^ ]*\/(cur|new)\//.test(line)).length;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
