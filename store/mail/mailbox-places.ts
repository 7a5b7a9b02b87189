/**
 * Mailboxes by their paths. Where a path has led once is remembered, and asked for by one read that also proves it: the rows of its names must still say the same.
 * What the answer was read with goes along, so that whoever opens the mailbox next need not ask again.
 */
import type { KvReads } from '../kv/contract.js';
import type { MailContext } from './context.js';
import { type AccountId, type AsOf, type Mailbox, type MailboxCounts, type MailboxId, mailLimits } from './contract.js';
import type { AccountKeys } from './keys.js';
import { normalPath } from './names.js';
import { decodeRecent } from './recent.js';
import { decodeCounts, decodeMailbox } from './records.js';
import { publicCounts, resolvePath } from './tree.js';

/** Of all accounts together; those that came first go first. */
const maxKnownPaths = 20_000;

export interface MailboxAt {
  mailbox: Mailbox;
  counts: MailboxCounts;
  asOf: AsOf;
}

/** A path that has led to a mailbox. */
interface KnownPath {
  path: string[];
  id: MailboxId;
  /** The rows of its names from the top down, and what they say. */
  nameKeys: readonly Buffer[];
  ids: readonly Buffer[];
  mailboxValue: Buffer;
  mailbox: Mailbox;
}

export class MailboxPlaces {
  readonly #context: Pick<MailContext, 'kv' | 'keysOf'>;
  readonly #known = new Map<string, KnownPath>();

  constructor(context: Pick<MailContext, 'kv' | 'keysOf'>) {
    this.#context = context;
  }

  /** The mailbox at a path in any spelling of INBOX and any Unicode form. */
  byPath(accountId: AccountId, path: readonly string[]): Promise<MailboxAt | undefined> {
    const keys = this.#context.keysOf(accountId);
    const name = `${accountId}/${path.join('/')}`;
    return this.#context.kv.read(async (reads) => {
      const known = this.#known.get(name);
      const found = known && (await this.#follow(reads, keys, known));
      return found ?? this.#find(reads, keys, name, path);
    });
  }

  /** Undefined where the path leads elsewhere now. */
  async #follow(reads: KvReads, keys: AccountKeys, known: KnownPath): Promise<MailboxAt | undefined> {
    const { id, nameKeys, ids } = known;
    const [state, recent, mailbox, counts, ...names] = await reads.getMany([...headKeys(keys, id), ...nameKeys]);
    if (!mailbox || !counts || !names.every((value, at) => value?.equals(ids[at]!))) return undefined;
    if (!mailbox.equals(known.mailboxValue)) {
      known.mailbox = { ...decodeMailbox(id, mailbox), path: known.path };
      known.mailboxValue = mailbox;
    }
    return placed(known.mailbox, counts, state, recent);
  }

  async #find(reads: KvReads, keys: AccountKeys, name: string, given: readonly string[]): Promise<MailboxAt | undefined> {
    this.#known.delete(name);
    const path = normalPath(given);
    if (path.length === 0 || path.length > mailLimits.maxMailboxDepth) return undefined;
    if (path.some((part) => Buffer.byteLength(part) > mailLimits.maxMailboxNameBytes)) return undefined;
    const ids = await resolvePath(reads, keys, path);
    if (ids.length < path.length) return undefined;
    const id = ids[ids.length - 1]!;
    const [state, recent, mailboxValue, counts] = await reads.getMany(headKeys(keys, id));
    if (!mailboxValue || !counts) return undefined;
    const mailbox = { ...decodeMailbox(id, mailboxValue), path };
    const nameKeys = path.map((part, depth) => keys.name(ids[depth - 1] ?? '', part));
    this.#remember(name, { path, id, nameKeys, ids: ids.map((one) => Buffer.from(one, 'latin1')), mailboxValue, mailbox });
    return placed(mailbox, counts, state, recent);
  }

  #remember(name: string, known: KnownPath): void {
    this.#known.set(name, known);
    if (this.#known.size > maxKnownPaths) this.#known.delete(this.#known.keys().next().value!);
  }
}

function headKeys(keys: AccountKeys, id: MailboxId): Buffer[] {
  return [keys.state, keys.recent(id), keys.mailbox(id), keys.counts(id)];
}

function placed(mailbox: Mailbox, counts: Buffer, state: Buffer | undefined, recent: Buffer | undefined): MailboxAt {
  return {
    mailbox: { ...mailbox },
    counts: publicCounts(decodeCounts(counts)),
    asOf: { state, recentFrom: recent && decodeRecent(recent) },
  };
}
