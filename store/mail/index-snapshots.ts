/**
 * Snapshots of large mailbox indexes in the store: the columns of one mailbox at one modseq, so that it is opened by reading some megabytes of chunks instead
 * of a row per message. Derived and never trusted: whoever loads one checks it against checksum, log and counts, and reads the mailbox whole where
 * anything is odd. Written in the background, chunk by chunk under a generation of its own; the head is switched last.
 */
import { crc32 } from 'node:zlib';
import { type Clock, counter, histogram, type Logger, type Random } from '../../ops/telemetry/index.js';
import type { KvReads, KvStore } from '../kv/contract.js';
import type { MailboxId } from './contract.js';
import { canHoldSnapshots, decodeChunk, encodeChunks } from './index-chunks.js';
import { type ColumnSlice, IndexColumns } from './index-columns.js';
import type { AccountKeys } from './keys.js';
import { isWrittenBy, tokenOf } from './log.js';
import { decodeCounts, packValue, unpackValue } from './records.js';

const written = counter('starling_mail_index_snapshots_total', 'Snapshots of mailbox indexes, by how their writing ended', [
  'outcome',
]);
const refused = counter('starling_mail_index_snapshots_refused_total', 'Snapshots that were there and not used', ['reason']);
const snapshotBytes = histogram(
  'starling_mail_index_snapshot_bytes',
  'Bytes of a written snapshot of a mailbox index',
  [],
  [65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864],
);

const format = 1;
const chunksPerRead = 32;
const maxBytesPerTransaction = 1_000_000;
const maxGeneration = 0xffff_ffff_ffff - 1;

export interface SnapshotSettings {
  /** Smaller mailboxes are read whole quickly enough. */
  minMessages: number;
  /** Entries changed since the last snapshot before there is a new one; at least this, and at least an eighth of the mailbox. */
  minChanges: number;
  /** Between two snapshots of one mailbox by one node, unless it has grown by as many messages: that goes on for so long only. */
  minIntervalMs: number;
}

export const defaultSnapshotSettings: SnapshotSettings = { minMessages: 2_000, minChanges: 2_000, minIntervalMs: 60_000 };

/** What a snapshot is of. */
export interface SnapshotHead {
  generation: number;
  modseq: number;
  count: number;
  chunks: number;
  /** CRC-32 over all chunks in order. */
  checksum: number;
  /** Of the log at `modseq`: tells whether this store has gone the same way up to there. Empty where the log was cut. */
  token: Buffer;
  /** The mailbox's counts row at `modseq`. */
  counts: Buffer;
}

function encodeHead(head: SnapshotHead): Buffer {
  const { generation, modseq, count, chunks, checksum, token, counts } = head;
  return packValue([format, generation, modseq, count, chunks, checksum, token, counts]);
}

/** Undefined also for a head of a format that this version does not know. */
export function decodeHead(value: Buffer | undefined): SnapshotHead | undefined {
  if (!value) return undefined;
  try {
    const [, generation, modseq, count, chunks, checksum, token, counts] = unpackValue(value, 'index snapshot') as [
      number,
      number,
      number,
      number,
      number,
      number,
      Buffer,
      Buffer,
    ];
    return { generation, modseq, count, chunks, checksum, token: Buffer.from(token), counts: Buffer.from(counts) };
  } catch {
    return undefined;
  }
}

/**
 * Whether this store has gone the same way up to the head's modseq: whether the log row there was written by the change that the head knows. 'unknown' where
 * that row was cut. A store that was put back to an earlier state, or copied piece by piece, may have gone another.
 */
export async function historyOf(reads: KvReads, keys: AccountKeys, head: SnapshotHead): Promise<'this' | 'another' | 'unknown'> {
  const row = await reads.get(keys.logAt(head.modseq));
  if (!row || head.token.length === 0) return 'unknown';
  return isWrittenBy(row, head.token) ? 'this' : 'another';
}

/** Whether these columns are what the counts row says of a mailbox. */
export function fitCounts(columns: IndexColumns, value: Buffer): boolean {
  const counts = decodeCounts(value);
  const totals = columns.totals();
  return (
    totals.total === counts.total &&
    totals.unseen === counts.unseen &&
    totals.deleted === counts.deleted &&
    totals.bytes === counts.bytes &&
    totals.maxModseq <= counts.highestModseq &&
    columns.lastUid < counts.uidNext
  );
}

/** Reads the chunks of a head; undefined, with the reason counted, when they are not what it says. */
export async function readChunks(
  kv: Pick<KvStore, 'read'>,
  keys: AccountKeys,
  mailboxId: MailboxId,
  head: SnapshotHead,
): Promise<IndexColumns | undefined> {
  const pageAt = (n: number) => {
    const { begin, end } = keys.indexChunks(mailboxId, head.generation, n);
    const page = kv.read((reads) => reads.getRange(begin, end, { limit: chunksPerRead }), { label: 'mail-index-snapshot' });
    // Whoever stops early leaves this promise behind.
    page.catch(() => {});
    return page;
  };
  const columns = new IndexColumns();
  columns.reserve(head.count);
  let checksum = 0;
  let next = pageAt(0);
  for (let n = 0; n < head.chunks; ) {
    const rows = await next;
    if (rows.length === 0) return refuse('missing');
    if (n + rows.length < head.chunks) next = pageAt(n + rows.length);
    for (const { key, value } of rows) {
      if (!key.equals(keys.indexChunk(mailboxId, head.generation, n++))) return refuse('missing');
      checksum = crc32(value, checksum);
      if (!appendChunk(columns, value, head)) return refuse('damaged');
    }
  }
  if (checksum !== head.checksum || columns.size !== head.count) return refuse('damaged');
  return fitCounts(columns, head.counts) ? columns : refuse('damaged');
}

function appendChunk(columns: IndexColumns, value: Buffer, head: SnapshotHead): boolean {
  try {
    const slice = decodeChunk(value);
    if (columns.size + slice.uids.length > head.count) return false;
    columns.append(slice);
    return true;
  } catch {
    return false;
  }
}

export function refuse(reason: 'missing' | 'damaged' | 'outdated' | 'other-counts'): undefined {
  refused.inc({ reason });
  return undefined;
}

/** A state of a mailbox's index that stays as it is. */
export interface FrozenIndex {
  keys: AccountKeys;
  mailboxId: MailboxId;
  modseq: number;
  counts: Buffer;
  columns: ColumnSlice;
  /** A generation that is known to be of no use. */
  badGeneration: number | undefined;
}

/** Who has a snapshot to write. */
export interface SnapshotSource {
  /** Undefined when there is nothing to write any more. Called when its turn has come. */
  freeze(): FrozenIndex | undefined;
  /** There is a snapshot of this modseq in the store now, made here or by another node. */
  snapshotIs(modseq: number, counts: Buffer | undefined): void;
}

/** Writes snapshots one after another, so that only one mailbox is held twice in memory. */
export class SnapshotWriter {
  private readonly waiting = new Set<SnapshotSource>();
  private running: Promise<void> | undefined;
  private isClosed = false;

  constructor(private readonly context: { kv: KvStore; random: Random; clock: Clock; logger: Logger }) {}

  offer(source: SnapshotSource): void {
    if (this.isClosed || !canHoldSnapshots) return;
    this.waiting.add(source);
    this.running ??= this.run();
  }

  /** Waits for what is being written; what only waits is forgotten once closed. */
  async idle(): Promise<void> {
    while (this.running) await this.running;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.waiting.clear();
    await this.idle();
  }

  private async run(): Promise<void> {
    // After whoever has just read the mailbox has gone on.
    await this.context.clock.sleep(0);
    for (const source of this.waiting) {
      this.waiting.delete(source);
      try {
        const frozen = source.freeze();
        const modseq = frozen && (await this.write(frozen));
        if (modseq !== undefined) source.snapshotIs(modseq, modseq === frozen?.modseq ? frozen.counts : undefined);
      } catch (error) {
        written.inc({ outcome: 'failed' });
        this.context.logger.warn({ err: error }, 'an index snapshot was not written');
      }
    }
    this.running = undefined;
  }

  /** The modseq of the snapshot that is there now; undefined when nothing was written. */
  private async write(frozen: FrozenIndex): Promise<number | undefined> {
    const generation = 1 + (this.context.random.bytes(6).readUIntBE(0, 6) % maxGeneration);
    const claimed = await this.claim(frozen, generation);
    if (!claimed || 'newer' in claimed) {
      written.inc({ outcome: claimed ? 'newer' : 'gone' });
      return claimed?.newer;
    }
    const chunks = await this.writeChunks(frozen, generation);
    if (!chunks) return undefined;
    const { modseq, counts, columns } = frozen;
    const head = { generation, modseq, counts, count: columns.uids.length, token: claimed.token, ...chunks };
    const isSwitched = await this.switchHead(frozen, head);
    written.inc({ outcome: isSwitched ? 'written' : 'overtaken' });
    return isSwitched ? modseq : undefined;
  }

  /** Announces the generation and clears what others have left unfinished. Undefined when the mailbox is gone. */
  private claim(
    frozen: FrozenIndex,
    generation: number,
  ): Promise<{ newer: number } | { newer?: never; token: Buffer } | undefined> {
    const { keys, mailboxId, modseq, badGeneration } = frozen;
    return this.context.kv.transact(
      async (tx) => {
        // A conflict with the removal of the mailbox: after it nothing is written any more.
        const [mailbox, headValue] = await tx.getMany([keys.mailbox(mailboxId), keys.indexHead(mailboxId)]);
        const log = await tx.snapshot.get(keys.logAt(modseq));
        if (!mailbox) return undefined;
        const head = decodeHead(headValue);
        const isOfUse = head && head.generation !== badGeneration;
        if (isOfUse && head.modseq >= modseq) return { newer: head.modseq };
        const claim = keys.indexClaim(mailboxId);
        const { end } = keys.indexOf(mailboxId);
        if (isOfUse) {
          const kept = keys.indexChunks(mailboxId, head.generation);
          tx.clearRange(claim, kept.begin);
          tx.clearRange(kept.end, end);
        } else {
          tx.clear(keys.indexHead(mailboxId));
          tx.clearRange(claim, end);
        }
        tx.set(claim, claimOf(generation));
        return { token: (log && tokenOf(log)) ?? Buffer.alloc(0) };
      },
      { label: 'mail-index-snapshot' },
    );
  }

  private async writeChunks(frozen: FrozenIndex, generation: number): Promise<{ chunks: number; checksum: number } | undefined> {
    const { keys, mailboxId } = frozen;
    let [chunks, checksum, total] = [0, 0, 0];
    let rows: { key: Buffer; value: Buffer }[] = [];
    let bytes = 0;
    const flush = async () => {
      const isOurs = await this.writeRows(frozen, generation, rows);
      rows = [];
      bytes = 0;
      return isOurs && !this.isClosed;
    };
    for (const value of encodeChunks(frozen.columns)) {
      rows.push({ key: keys.indexChunk(mailboxId, generation, chunks++), value });
      checksum = crc32(value, checksum);
      bytes += value.length;
      total += value.length;
      if (bytes >= maxBytesPerTransaction && !(await flush())) return this.abandoned();
    }
    if (rows.length > 0 && !(await flush())) return this.abandoned();
    snapshotBytes.observe(total);
    return { chunks, checksum };
  }

  private abandoned(): undefined {
    written.inc({ outcome: 'overtaken' });
  }

  /** False when the mailbox is gone, or another writer has begun since. */
  private writeRows(frozen: FrozenIndex, generation: number, rows: readonly { key: Buffer; value: Buffer }[]): Promise<boolean> {
    const { keys, mailboxId } = frozen;
    return this.context.kv.transact(
      async (tx) => {
        const [mailbox, claim] = await tx.getMany([keys.mailbox(mailboxId), keys.indexClaim(mailboxId)]);
        if (!mailbox || !claim?.equals(claimOf(generation))) return false;
        for (const { key, value } of rows) tx.set(key, value);
        return true;
      },
      { label: 'mail-index-snapshot' },
    );
  }

  private switchHead(frozen: FrozenIndex, head: SnapshotHead): Promise<boolean> {
    const { keys, mailboxId } = frozen;
    return this.context.kv.transact(
      async (tx) => {
        const [mailbox, claim, headValue] = await tx.getMany([
          keys.mailbox(mailboxId),
          keys.indexClaim(mailboxId),
          keys.indexHead(mailboxId),
        ]);
        const before = decodeHead(headValue);
        // An earlier attempt, whose commit was unknown, did it.
        if (before?.generation === head.generation) return true;
        if (!mailbox || !claim?.equals(claimOf(head.generation))) return false;
        tx.set(keys.indexHead(mailboxId), encodeHead(head));
        tx.clear(keys.indexClaim(mailboxId));
        if (before) {
          const { begin, end } = keys.indexChunks(mailboxId, before.generation);
          tx.clearRange(begin, end);
        }
        return true;
      },
      { label: 'mail-index-snapshot' },
    );
  }
}

function claimOf(generation: number): Buffer {
  return packValue([format, generation]);
}
