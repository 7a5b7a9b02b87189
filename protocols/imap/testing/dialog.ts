/**
 * Runs dialogs: text files that say what clients send and what they must hear. One step per line:
 *
 *     # comment
 *     server quota=1000             options of the server, before anything else (quota, plain=no, everyone=no, messages=2)
 *     deliver INBOX 3 [bob]         that many messages, as delivery would put them; their subjects are `message 1` …
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
import { KeptWords, runSteps, withEscapes } from './dialog-text.js';
import { accountIdOf, startTestServer, type TestServer } from './server.js';

class Dialog {
  readonly #kv: KvStore | undefined;
  readonly #clients = new Map<string, TestClient>();
  readonly #kept = new KeptWords();
  #server: TestServer | undefined;
  #delivered = 0;

  constructor(kv: KvStore | undefined) {
    this.#kv = kv;
  }

  get #store(): { kv?: KvStore } {
    return this.#kv ? { kv: this.#kv } : {};
  }

  async run(text: string): Promise<void> {
    try {
      await runSteps(text, (step) => this.#step(step));
    } finally {
      for (const client of this.#clients.values()) client.close();
      if (this.#kv)
        for (const login of ['alice', 'bob', 'carol', 'team']) await this.#server?.mail.removeAccount(accountIdOf(login));
      await this.#server?.close();
    }
  }

  async #step(text: string): Promise<void> {
    if (text.startsWith('server')) {
      const messages = /messages=(\d+)/.exec(text);
      const quota = /quota=(\d+)/.exec(text);
      this.#server = await startTestServer({
        allowPlainAuth: !text.includes('plain=no'),
        sharesWithEveryone: !text.includes('everyone=no'),
        ...this.#store,
        ...(messages ? { limits: { maxMessagesPerCommand: Number(messages[1]) } } : {}),
        ...(quota ? { quotaLimitBytes: Number(quota[1]) } : {}),
      });
      return;
    }
    this.#server ??= await startTestServer(this.#store);
    const delivery = /^deliver (\S+) (\d+)(?: (\w+))?$/.exec(text);
    if (delivery) return this.#deliver(delivery[1]!, Number(delivery[2]), delivery[3] ?? 'alice');
    const match = /^(c\d): (open|login|closed?|ok|->|=>|<-|<~)(?: (.*))?$/s.exec(text);
    if (!match) throw new Error('not a step');
    await this.#clientStep(match[1]!, match[2]!, this.#kept.fill(match[3] ?? ''));
  }

  async #deliver(mailbox: string, count: number, login: string): Promise<void> {
    await this.#server!.mail.ensureAccount(accountIdOf(login));
    for (let i = 0; i < count; i++) {
      const number = ++this.#delivered;
      const header = `From: Sender ${number} <s${number}@example.org>\r\nTo: alice@example.test\r\nSubject: message ${number}\r\n`;
      const date = 'Date: Mon, 5 Feb 2024 23:30:00 -0500\r\n';
      await this.#server!.deliver(
        login,
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
    const matches = this.#kept.matcher(pattern, '[^\\s()\\]]+');
    const passed: string[] = [];
    for (;;) {
      const line = await client.line();
      if (line !== undefined && matches(line)) return;
      passed.push(line ?? '(closed)');
      if (!skipping || line === undefined || passed.length > 1_000) throw new Error(`got: ${passed.join('\n     ')}`);
    }
  }
}

/** Throws DialogFailure with the line that went wrong. On a fresh memory store, or on `kv`, from which alice's mail is removed at the end. */
export async function runDialog(text: string, kv?: KvStore): Promise<void> {
  await new Dialog(kv).run(text);
}
