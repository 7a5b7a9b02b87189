/**
 * Runs dialogs: text files that say what clients send and what they must hear. One step per line:
 *
 *     # comment
 *     server plain=no               options of the server, before anything else
 *     deliver 3                     that many messages; their subjects are `message 1` …
 *     deliver text                  one message of exactly this text; `\r`, `\n`, `\0`, `\xHH` are read as escapes
 *     c1: open | open tls | login [alice] | close | closed
 *     c1: -> text                   a line, with escapes
 *     c1: => text                   the same without a line end
 *     c1: <- pattern                the very next line; `...` stands for anything, `{{name}}` for a word that is kept under that name
 *     c1: ok                        the next line begins with +OK
 *
 * In lines and patterns `{{=name}}` is what was kept.
 */
import type { KvStore } from '../../../store/kv/index.js';
import { TestClient } from '../../imap/testing/client.js';
import { KeptWords, runSteps, withEscapes } from '../../imap/testing/dialog-text.js';
import { aliceId, startTestServer, type TestServer, testPassword } from './server.js';

class Dialog {
  readonly #clients = new Map<string, TestClient>();
  readonly #kept = new KeptWords();
  #server: TestServer | undefined;
  #delivered = 0;

  constructor(readonly kv: KvStore | undefined) {}

  async run(text: string): Promise<void> {
    try {
      await runSteps(text, (step) => this.#step(step));
    } finally {
      for (const client of this.#clients.values()) client.close();
      if (this.kv) await this.#server?.mail.removeAccount(aliceId);
      await this.#server?.close();
    }
  }

  async #step(text: string): Promise<void> {
    const store = this.kv ? { kv: this.kv } : {};
    if (text.startsWith('server')) {
      this.#server = await startTestServer({ allowPlainAuth: !text.includes('plain=no'), ...store });
      return;
    }
    this.#server ??= await startTestServer(store);
    const delivery = /^deliver (.+)$/.exec(text);
    if (delivery) return this.#deliver(delivery[1]!);
    const match = /^(c\d): (open|login|closed?|ok|->|=>|<-)(?: (.*))?$/s.exec(text);
    if (!match) throw new Error('not a step');
    await this.#clientStep(match[1]!, match[2]!, this.#kept.fill(match[3] ?? ''));
  }

  async #deliver(what: string): Promise<void> {
    if (!/^\d+$/.test(what)) {
      await this.#server!.deliver(Buffer.from(withEscapes(what), 'latin1'));
      return;
    }
    for (let i = 0; i < Number(what); i++) {
      const number = ++this.#delivered;
      await this.#server!.deliver(`From: s${number}@example.org\r\nSubject: message ${number}\r\n\r\nBody ${number}\r\n`);
    }
  }

  async #clientStep(name: string, verb: string, text: string): Promise<void> {
    const server = this.#server!;
    if (verb === 'open' || verb === 'login') {
      const isTls = text === 'tls';
      const client = await TestClient.open(isTls ? server.tlsPort : server.port, isTls);
      this.#clients.set(name, client);
      if (verb === 'open') return;
      client.send(`USER ${text || 'alice'}\r\nPASS ${testPassword}\r\n`);
      for (let i = 0; i < 3; i++) await this.#expect(client, '+OK ...');
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
      default:
        await this.#expect(client, verb === 'ok' ? '+OK ...' : text);
    }
  }

  async #expect(client: TestClient, pattern: string): Promise<void> {
    const line = await client.line();
    if (line === undefined || !this.#kept.matcher(pattern, '\\S+')(line)) throw new Error(`got: ${line ?? '(closed)'}`);
  }
}

/** Throws DialogFailure with the line that went wrong. On a fresh memory store, or on `kv`, from which alice's mail is removed at the end. */
export async function runDialog(text: string, kv?: KvStore): Promise<void> {
  await new Dialog(kv).run(text);
}
