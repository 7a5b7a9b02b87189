/**
 * Writes the blocks of one new segment and puts it into the head. What does not fit the transaction of the head goes before it; meanwhile a row says that these
 * blocks belong to nobody yet, which is what whoever clears up after a crash goes by, and what keeps a writer that was given up from going on.
 */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import type { AccountId } from '../mail/contract.js';
import { blockBytes, decodeHead, emptyHead, encodeHead, encodeLoose, type SearchHead, type Segment } from './head.js';
import { searchKeys } from './keys.js';

export interface WriterContext {
  kv: KvStore;
  clock: Clock;
  random: Random;
  /** What does not fit the transaction of the head is written ahead of it, in transactions of about this size. */
  transactionBytes: number;
}

/** What a change of the head comes to; undefined: it can't be done any more. */
export type HeadChange = (head: SearchHead | undefined) => { head: SearchHead; replaced: readonly Segment[] } | undefined;

/** Another one has cleared this writer's blocks: it took too long. */
class GivenUp extends Error {}

export class SegmentWriter {
  readonly id: string;
  readonly #context: WriterContext;
  readonly #accountId: AccountId;
  readonly #blocksPerTransaction: number;
  #parts: Buffer[] = [];
  #partBytes = 0;
  #blocks: Buffer[] = [];
  #written = 0;
  #isAhead = false;
  #isGivenUp = false;
  length = 0;

  constructor(context: WriterContext, accountId: AccountId) {
    this.#context = context;
    this.#accountId = accountId;
    this.#blocksPerTransaction = Math.max(1, Math.floor(context.transactionBytes / blockBytes));
    this.id = context.random.bytes(8).toString('hex');
  }

  /** Appends bytes, which then belong to the writer. */
  async write(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return;
    this.length += bytes.length;
    this.#parts.push(bytes);
    this.#partBytes += bytes.length;
    if (this.#partBytes >= blockBytes) this.#cutBlocks(false);
    if (this.#blocks.length >= this.#blocksPerTransaction) await this.#writeAhead();
  }

  #cutBlocks(isEnd: boolean): void {
    const all = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts);
    let at = 0;
    for (; all.length - at >= blockBytes; at += blockBytes) this.#blocks.push(all.subarray(at, at + blockBytes));
    const rest = all.subarray(at);
    if (isEnd && rest.length > 0) this.#blocks.push(rest);
    this.#parts = isEnd || rest.length === 0 ? [] : [rest];
    this.#partBytes = isEnd ? 0 : rest.length;
  }

  async #writeAhead(): Promise<void> {
    const { kv, clock } = this.#context;
    const perTransaction = this.#blocksPerTransaction;
    while (this.#blocks.length >= perTransaction && !this.#isGivenUp) {
      const blocks = this.#blocks.splice(0, perTransaction);
      const isFirst = !this.#isAhead;
      this.#isAhead = true;
      const loose = searchKeys.loose(this.#accountId, this.id);
      const isMine = await kv.transact(
        async (tx) => {
          if (isFirst) tx.set(loose, encodeLoose({ state: 'writing', sinceMs: clock.nowMs() }));
          else if (!(await tx.get(loose))) return false;
          this.#setBlocks(tx, blocks);
          return true;
        },
        { label: 'search-blocks' },
      );
      this.#isGivenUp = !isMine;
      this.#written += blocks.length;
    }
  }

  #setBlocks(tx: KvTransaction, blocks: readonly Buffer[]): void {
    for (const [at, block] of blocks.entries()) tx.set(searchKeys.block(this.#accountId, this.id, this.#written + at), block);
  }

  /** Writes the rest and switches the head. False, and nothing is left of the segment, when `change` says that it can't be any more. */
  async finish(change: HeadChange): Promise<boolean> {
    this.#cutBlocks(true);
    await this.#writeAhead();
    if (await this.#switch(change)) return true;
    await this.discard();
    return false;
  }

  async #switch(change: HeadChange): Promise<boolean> {
    const { kv, clock } = this.#context;
    if (this.#isGivenUp) return false;
    const loose = searchKeys.loose(this.#accountId, this.id);
    try {
      return await kv.transact(
        async (tx) => {
          const [value, mark] = await tx.getMany([searchKeys.head(this.#accountId), loose]);
          const head = value && decodeHead(value);
          // An earlier run of this body was committed, unheard.
          if (head?.segments.some(({ id }) => id === this.id)) return true;
          if (this.#isAhead && !mark) throw new GivenUp();
          const changed = change(head);
          if (!changed) return false;
          this.#setBlocks(tx, this.#blocks);
          if (this.#isAhead) tx.clear(loose);
          for (const { id } of changed.replaced) {
            const sinceMs = clock.nowMs();
            tx.set(searchKeys.loose(this.#accountId, id), encodeLoose({ state: 'replaced', sinceMs }));
          }
          tx.set(searchKeys.head(this.#accountId), encodeHead(changed.head));
          return true;
        },
        { label: 'search-head' },
      );
    } catch (error) {
      if (error instanceof GivenUp) return false;
      throw error;
    }
  }

  /** Clears what was written so far. Only for a segment that is in no head. */
  async discard(): Promise<void> {
    if (!this.#isAhead) return;
    await this.#context.kv.transact(async (tx) => clearSegment(tx, this.#accountId, this.id), { label: 'search-clear' });
  }
}

/** Clears the blocks of a segment and the row that says that they are loose. */
export function clearSegment(tx: KvTransaction, accountId: AccountId, segmentId: string): void {
  const { begin, end } = searchKeys.blocksOf(accountId, segmentId);
  tx.clearRange(begin, end);
  tx.clear(searchKeys.loose(accountId, segmentId));
}

/** Changes the head alone; false when `change` says that it can't be. */
export function changeHead(
  { kv }: Pick<WriterContext, 'kv'>,
  accountId: AccountId,
  change: (head: SearchHead, mayHaveCommitted: boolean) => SearchHead | undefined,
): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const value = await tx.get(searchKeys.head(accountId));
      const head = value ? decodeHead(value) : emptyHead;
      const changed = change(head, tx.mayHaveCommitted);
      if (!changed) return false;
      if (changed !== head) tx.set(searchKeys.head(accountId), encodeHead(changed));
      return true;
    },
    { label: 'search-head' },
  );
}
