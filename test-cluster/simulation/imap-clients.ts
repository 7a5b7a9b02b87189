/**
 * Clients that work in mailboxes as IMAP sessions do, on any node: append, set and take off a keyword of their own, expunge. What they were told stays true;
 * of what they were not told nobody knows.
 */
import { KvError } from '../../store/kv/index.js';
import { type MailboxIndex, MailError } from '../../store/mail/index.js';
import { placeOf } from './ledger.js';
import { messageBytes } from './messages.js';
import type { SimulatedNode } from './node.js';
import type { SeededRandom } from './random.js';
import { users } from './settings.js';
import { describe } from './story.js';
import type { World } from './world.js';

const clients = 3;
const patienceMs = 25_000;

export async function runImapClients(world: World): Promise<void> {
  await Promise.all(Array.from({ length: clients }, (_, at) => new ImapClient(world, at).run()));
}

/** A mailbox that is open on a node. */
interface Opened {
  node: SimulatedNode;
  mailboxId: string;
  index: MailboxIndex;
}

class ImapClient {
  readonly #random: SeededRandom;
  readonly #accountId: string;
  readonly #user: string;
  /** Nobody else sets it. */
  readonly #keyword: string;
  readonly #name: string;
  #opened: Opened | undefined;
  #count = 0;

  constructor(
    readonly world: World,
    at: number,
  ) {
    this.#name = `i${at + 1}`;
    this.#random = world.random.fork(this.#name);
    // Two clients share an account, the third has one to itself.
    this.#accountId = world.accounts[at % 2]!;
    this.#user = users[at % 2]!;
    this.#keyword = `seen-by-${this.#name}`;
  }

  async run(): Promise<void> {
    const { world } = this;
    for (;;) {
      await world.clock.sleep(this.#random.between(200, 2_000));
      if (world.isClosing) return;
      await this.#turn();
    }
  }

  async #turn(): Promise<void> {
    const opened = await this.#session();
    if (!opened) return;
    const uids = [...opened.index.uids()];
    const place = this.#random.float();
    if (place < 0.25 || uids.length === 0) await this.#append(opened);
    else if (place < 0.9) await this.#flag(opened, this.#random.pick(uids));
    else await this.#expunge(opened, this.#random.pick(uids));
  }

  /** Goes on where it was, or opens the mailbox on another node. */
  async #session(): Promise<Opened | undefined> {
    const { world } = this;
    if (this.#opened && (!this.#opened.node.isOpen || this.#random.chance(0.1))) {
      if (this.#opened.node.isAlive) this.#opened.index.release();
      this.#opened = undefined;
    }
    if (!this.#opened) {
      const { open } = world;
      if (open.length === 0) return undefined;
      const node = this.#random.pick(open);
      const { mail } = node.parts;
      const opening = async (): Promise<Opened | undefined> => {
        const found = await mail.mailboxByPath(this.#accountId, ['INBOX']);
        if (!found) return undefined;
        const mailboxId = found.mailbox.id;
        return { node, mailboxId, index: await mail.openIndex(this.#accountId, mailboxId) };
      };
      this.#opened = await this.#done(node, 'opens INBOX', opening());
    }
    const opened = this.#opened;
    if (!opened) return undefined;
    const refreshed = await this.#done(
      opened.node,
      'looks',
      opened.index.refresh().then(() => true),
    );
    if (!refreshed) this.#opened = undefined;
    return refreshed ? opened : undefined;
  }

  async #append({ node, mailboxId }: Opened): Promise<void> {
    const { world } = this;
    const { mail, blobs } = node.parts;
    const token = `${this.#name}-${++this.#count}`;
    const bytes = messageBytes(token, this.#user, [this.#user], 200);
    const blob = blobs.prepare(bytes);
    world.ledger.named(blob.id, token);
    const message = {
      blob,
      mailboxIds: [mailboxId],
      receivedAtMs: node.clock.nowMs(),
      summary: Buffer.from(token),
      messageIds: [token],
    };
    const inserted = await this.#done(node, `appends ${token}`, mail.append(this.#accountId, [message]));
    const uid = inserted?.[0]?.uids[0]?.uid;
    if (uid !== undefined) world.ledger.appended.push({ accountId: this.#accountId, mailboxId, uid });
  }

  async #flag({ node, mailboxId }: Opened, uid: number): Promise<void> {
    const { ledger } = this.world;
    const place = placeOf(this.#accountId, mailboxId, uid);
    const isSet = this.#random.chance(0.6);
    const change = { mode: isSet ? ('add' as const) : ('remove' as const), keywords: [this.#keyword], deleted: false };
    const changing = node.parts.mail.changeFlags(this.#accountId, mailboxId, [uid], change);
    const result = await this.#done(node, `${isSet ? 'flags' : 'unflags'} ${place}`, changing);
    if (!result) ledger.know(place, this.#keyword, 'never');
    else if (result.entries.length > 0) ledger.know(place, this.#keyword, isSet);
  }

  async #expunge({ node, mailboxId }: Opened, uid: number): Promise<void> {
    const { ledger } = this.world;
    const place = placeOf(this.#accountId, mailboxId, uid);
    ledger.unwanted.add(place);
    const { mail } = node.parts;
    const expunging = async () => {
      await mail.changeFlags(this.#accountId, mailboxId, [uid], { mode: 'add', keywords: [], deleted: true });
      return mail.expunge(this.#accountId, mailboxId, [uid]);
    };
    if (await this.#done(node, `expunges ${place}`, expunging())) ledger.gone.add(place);
  }

  /** What a session does, with its outcome if the client heard of it. */
  async #done<T>(node: SimulatedNode, what: string, work: Promise<T>): Promise<T | undefined> {
    const { world } = this;
    const heard = await world.heard(work, patienceMs);
    if (!heard || node.isDead) {
      world.story.tell('client', node.name, `${this.#name} ${what}, and hears nothing`);
      return undefined;
    }
    if ('value' in heard) {
      if (what !== 'looks') world.story.tell('client', node.name, `${this.#name} ${what}`);
      return heard.value;
    }
    const { error } = heard;
    world.story.tell('client', node.name, `${this.#name} ${what}, in vain: ${describe(error)}`);
    if (!(error instanceof KvError) && !(error instanceof MailError))
      world.story.violate('unforeseen', `${node.name}: ${this.#name} ${what}: ${describe(error)}`, [node.name]);
    return undefined;
  }
}
