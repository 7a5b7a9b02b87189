/** A Maildir that mbsync keeps, over one server after another: whatever a move of the store has changed for a client shows as a change here. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { servedCertificate } from './clients.js';
import { runCommand } from './processes.js';

export class MbsyncMirror {
  private readonly folder = mkdtempSync(join(tmpdir(), 'starling-mirror-'));

  constructor(
    private readonly user: string,
    private readonly password: string,
  ) {
    mkdirSync(join(this.folder, 'mail'));
  }

  /**
   * Pulls everything from the server behind an IMAPS port: new mail, flags, removals. Throws what mbsync says when it can't, which it also does over a
   * changed UIDVALIDITY.
   */
  async pull(port: number): Promise<void> {
    const certificate = join(this.folder, 'certificate.pem');
    writeFileSync(certificate, await servedCertificate(port));
    const settings = [
      'IMAPAccount node',
      'Host 127.0.0.1',
      `Port ${port}`,
      `User ${this.user}`,
      `Pass ${this.password}`,
      'SSLType IMAPS',
      `CertificateFile ${certificate}`,
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
      'Create Near',
      'Expunge Near',
      'Sync Pull',
      'SyncState *',
      '',
    ];
    const file = join(this.folder, 'mbsyncrc');
    writeFileSync(file, settings.join('\n'), { mode: 0o600 });
    const { code, stdout, stderr } = await runCommand('mbsync', ['-c', file, 'all'], {
      env: { HOME: this.folder },
      timeoutMs: 120_000,
    });
    if (code !== 0) throw new Error(`mbsync ended with ${code}: ${stdout}${stderr}`);
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
