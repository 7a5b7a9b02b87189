/**
 * Runs dialogs: text files that say what clients send and what they must hear. One step per line:
 *
 *     # comment
 *     server quota=1000             options of the server, before anything else (quota, plain=no)
 *     deliver INBOX 3               that many messages, as delivery would put them; their subjects are `message 1` …
 *     c1: open | open tls | login [alice] | close | closed
 *     c1: -> text                   a line; `\r`, `\n`, `\0`, `\xHH` are read as escapes
 *     c1: => text                   the same without a line end
 *     c1: <- pattern                the very next line; `...` stands for anything, `{{name}}` for a word that is kept under that name
 *     c1: <~ pattern                some later line, those in between are passed over
 *     c1: ok tag                    lines up to the tagged one, which must be OK; none of them may be anything but `* …`
 *
 * In lines and patterns `{{=name}}` is what was kept.
 */

import type { KvStore } from '../../../store/kv/index.js';
import { TestClient } from './client.js';
import { accountIdOf, startTestServer, type TestServer } from './server.js';

interface Step {
  lineNumber: number;
  text: string;
}

export class DialogFailure extends Error {
  override readonly name = 'DialogFailure';
}

function withEscapes(text: string): string {
  return text.replace(/\\(?:r|n|0|\\|x([0-9a-fA-F]{2}))/g, (code, hex?: string) => {
    if (hex) return String.fromCharCode(Number.parseInt(hex, 16));
    return { '\\r': '\r', '\\n': '\n', '\\0': '\0', '\\\\': '\\' }[code]!;
  });
}

class Dialog {
  readonly #kv: KvStore | undefined;
  readonly #clients = new Map<string, TestClient>();
  readonly #kept = new Map<string, string>();
  #server: TestServer | undefined;
  #delivered = 0;

  constructor(kv: KvStore | undefined) {
    this.#kv = kv;
  }

  get #store(): { kv?: KvStore } {
    return this.#kv ? { kv: this.#kv } : {};
  }

  async run(steps: readonly Step[]): Promise<void> {
    try {
      for (const step of steps) {
        try {
          await this.#step(step.text);
        } catch (error) {
          throw new DialogFailure(`line ${step.lineNumber}: ${step.text}\n${(error as Error).message}`, { cause: error });
        }
      }
    } finally {
      for (const client of this.#clients.values()) client.close();
      if (this.#kv) await this.#server?.mail.removeAccount(accountIdOf('alice'));
      await this.#server?.close();
    }
  }

  async #step(text: string): Promise<void> {
    if (text.startsWith('server')) {
      const quota = /quota=(\d+)/.exec(text);
      this.#server = await startTestServer({
        allowPlainAuth: !text.includes('plain=no'),
        ...this.#store,
        ...(quota ? { quotaLimitBytes: Number(quota[1]) } : {}),
      });
      return;
    }
    this.#server ??= await startTestServer(this.#store);
    const delivery = /^deliver (\S+) (\d+)$/.exec(text);
    if (delivery) return this.#deliver(delivery[1]!, Number(delivery[2]));
    const match = /^(c\d): (open|login|closed?|ok|->|=>|<-|<~)(?: (.*))?$/s.exec(text);
    if (!match) throw new Error('not a step');
    await this.#clientStep(match[1]!, match[2]!, this.#fill(match[3] ?? ''));
  }

  async #deliver(mailbox: string, count: number): Promise<void> {
    await this.#server!.mail.ensureAccount(accountIdOf('alice'));
    for (let i = 0; i < count; i++) {
      const number = ++this.#delivered;
      const header = `From: Sender ${number} <s${number}@example.org>\r\nTo: alice@example.test\r\nSubject: message ${number}\r\n`;
      const date = 'Date: Mon, 5 Feb 2024 23:30:00 -0500\r\n';
      await this.#server!.deliver(
        'alice',
        mailbox,
        `${header}${date}Message-ID: <${number}@example.org>\r\n\r\nBody ${number}\r\n`,
      );
    }
  }

  async #clientStep(name: string, verb: string, text: string): Promise<void> {
    const server = this.#server!;
    if (verb === 'open') {
      this.#clients.set(name, await TestClient.open(text === 'tls' ? server.tlsPort : server.port, text === 'tls'));
      return;
    }
    if (verb === 'login') {
      this.#clients.set(name, await TestClient.login(server.port, text || 'alice'));
      return;
    }
    const client = this.#clients.get(name);
    if (!client) throw new Error(`${name} is not open`);
    switch (verb) {
      case 'close':
        client.close();
        return;
      case 'closed': {
        const line = await client.line();
        if (line !== undefined) throw new Error(`expected the end, got: ${line}`);
        return;
      }
      case '->':
        client.send(`${withEscapes(text)}\r\n`);
        return;
      case '=>':
        client.send(withEscapes(text));
        return;
      case 'ok':
        return this.#expectOk(client, text);
      default:
        return this.#expect(client, text, verb === '<~');
    }
  }

  async #expectOk(client: TestClient, tag: string): Promise<void> {
    for (;;) {
      const line = await client.line();
      if (line === undefined) throw new Error('closed');
      if (line.startsWith(`${tag} OK`)) return;
      if (!line.startsWith('* ')) throw new Error(`got: ${line}`);
    }
  }

  async #expect(client: TestClient, pattern: string, skipping: boolean): Promise<void> {
    const names: string[] = [];
    const source = withEscapes(pattern)
      .split(/(\.\.\.|\{\{\w+\}\})/)
      .map((piece) => {
        if (piece === '...') return '[^]*';
        const keeping = /^\{\{(\w+)\}\}$/.exec(piece);
        if (!keeping) return piece.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
        names.push(keeping[1]!);
        return '([^\\s()\\]]+)';
      })
      .join('');
    const regex = new RegExp(`^${source}$`);
    const passed: string[] = [];
    for (;;) {
      const line = await client.line();
      const match = line === undefined ? null : regex.exec(line);
      if (match) {
        for (const [i, name] of names.entries()) this.#kept.set(name, match[i + 1]!);
        return;
      }
      passed.push(line ?? '(closed)');
      if (!skipping || line === undefined || passed.length > 1_000) throw new Error(`got: ${passed.join('\n     ')}`);
    }
  }

  #fill(text: string): string {
    return text.replace(/\{\{=(\w+)\}\}/g, (_, name: string) => this.#kept.get(name) ?? '');
  }
}

/** Throws DialogFailure with the line that went wrong. On a fresh memory store, or on `kv`, from which alice's mail is removed at the end. */
export async function runDialog(text: string, kv?: KvStore): Promise<void> {
  const steps = text
    .split('\n')
    .map((line, i) => ({ lineNumber: i + 1, text: line.trimEnd() }))
    .filter(({ text: line }) => line !== '' && !line.startsWith('#'));
  await new Dialog(kv).run(steps);
}
