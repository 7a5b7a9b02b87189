/**
 * The mailboxes of accounts as this node has last read them, brought up to date from the change log: LIST of ten thousand mailboxes costs one read of what has
 * changed since, and of the counts of mailboxes in which something has. Bounded by mailboxes; what was used longest ago goes.
 */
import type { KvReads } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, MailboxId } from './contract.js';
import type { AccountKeys } from './keys.js';
import { readLog } from './log.js';
import { decodeCounts, decodeLogFloor, decodeState } from './records.js';
import { type MailboxWithCounts, publicCounts, readTree } from './tree.js';

/** Sets of changes that are followed; beyond that reading anew is cheaper. */
const maxFollowedSets = 500;
/** Smaller trees are read as fast as a log. */
const minCachedMailboxes = 64;
const maxCachedMailboxes = 50_000;

interface CachedTree {
  modseq: number;
  /** In order. Never changed once given out: a change makes another list. */
  tree: readonly MailboxWithCounts[];
  places: ReadonlyMap<MailboxId, number>;
}

export class TreeCache {
  readonly #context: MailContext;
  readonly #trees = new Map<AccountId, CachedTree>();
  #mailboxes = 0;

  constructor(context: MailContext) {
    this.#context = context;
  }

  /** All mailboxes with their counts as they are committed now, parents before children. */
  async read(accountId: AccountId): Promise<MailboxWithCounts[]> {
    const keys = this.#context.keysOf(accountId);
    const known = this.#trees.get(accountId);
    const found = await this.#context.kv.read(
      async (reads) => (known && (await followed(reads, keys, known))) ?? readAnew(reads, keys),
    );
    if (found !== known) this.#remember(accountId, found);
    return [...found.tree];
  }

  #remember(accountId: AccountId, found: CachedTree): void {
    const before = this.#trees.get(accountId);
    // Somebody has read a later state meanwhile.
    if (before && before.modseq > found.modseq) return;
    this.#forget(accountId);
    if (found.tree.length < minCachedMailboxes || found.tree.length > maxCachedMailboxes) return;
    this.#trees.set(accountId, found);
    this.#mailboxes += found.tree.length;
    for (const oldest of this.#trees.keys()) {
      if (this.#mailboxes <= maxCachedMailboxes) return;
      this.#forget(oldest);
    }
  }

  #forget(accountId: AccountId): void {
    const known = this.#trees.get(accountId);
    if (!known) return;
    this.#trees.delete(accountId);
    this.#mailboxes -= known.tree.length;
  }
}

async function readAnew(reads: KvReads, keys: AccountKeys): Promise<CachedTree> {
  const [state, tree] = await Promise.all([reads.get(keys.state), readTree(reads, keys)]);
  return withPlaces(state ? decodeState(state).modseq : 0, tree);
}

function withPlaces(modseq: number, tree: readonly MailboxWithCounts[]): CachedTree {
  return { modseq, tree, places: new Map(tree.map(({ mailbox }, place) => [mailbox.id, place])) };
}

/** The tree with what the log tells; undefined where it must be read anew: a mailbox has changed, too much has, or the log does not reach back. */
async function followed(reads: KvReads, keys: AccountKeys, known: CachedTree): Promise<CachedTree | undefined> {
  const [state, floor] = await reads.getMany([keys.state, keys.logFloor]);
  if (!state) return undefined;
  const { modseq } = decodeState(state);
  if (modseq === known.modseq) return known;
  if (modseq < known.modseq || decodeLogFloor(floor).modseq > known.modseq) return undefined;
  const { sets, hasMore } = await readLog(reads, keys, known.modseq, maxFollowedSets);
  if (hasMore) return undefined;
  const touched = new Set<MailboxId>();
  for (const { changes } of sets) {
    for (const change of changes) {
      if (change.kind.startsWith('mailbox-')) return undefined;
      if ('mailboxId' in change) touched.add(change.mailboxId);
    }
  }
  const ids = [...touched].filter((id) => known.places.has(id));
  const values = await reads.getMany(ids.map((id) => keys.counts(id)));
  const tree = [...known.tree];
  for (const [at, id] of ids.entries()) {
    const value = values[at];
    if (!value) return undefined;
    const place = known.places.get(id)!;
    tree[place] = { mailbox: tree[place]!.mailbox, counts: publicCounts(decodeCounts(value)) };
  }
  return { modseq, tree, places: known.places };
}
