/** Look-up lists in the store, with a memory of recent answers. */
import type { Clock } from '../../ops/telemetry/index.js';
import { keyItems, keysUnder, subspace } from '../keyspace.js';
import { type KvReads, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import { indexExpiry, purgeExpired, recordKey } from '../limits/expiring.js';
import { S3Fifo } from '../limits/s3-fifo.js';
import { type LookupEntry, type Lookups, lookupLimits } from './contract.js';
import { decodeEntry, encodeEntry, entryTable, type StoredEntry } from './records.js';

const freshMs = 1_000;
const maxRemembered = 20_000;
/** Longer values are read each time: what is remembered has to fit into some megabytes. */
const maxRememberedCharacters = 512;
const perTransaction = 500;
const defaultPage = 1_000;
interface Answer {
  stored: StoredEntry | undefined;
  /** Monotonic. */
  askedAtMs: number;
}

export function createLookups({ kv, clock }: { kv: KvStore; clock: Clock }): Lookups {
  const answers = new S3Fifo<Answer>(maxRemembered);
  const asked = new Map<string, Promise<StoredEntry | undefined>>();

  const current = (stored: StoredEntry | undefined) => (stored && !isOver(stored.expiresAtMs) ? stored.value : undefined);
  const isOver = (expiresAtMs: number | undefined) => expiresAtMs !== undefined && expiresAtMs <= clock.nowMs();

  async function ask(id: string, list: string, of: string): Promise<StoredEntry | undefined> {
    const askedAtMs = clock.monotonicMs();
    const found = await kv.read((reads) => reads.get(recordKey(entryTable, list, of)), { label: 'lookup' });
    const stored = found && decodeEntry(found);
    if (!stored || stored.value.length <= maxRememberedCharacters) answers.set(id, { stored, askedAtMs });
    else answers.delete(id);
    return stored;
  }

  return {
    async get(list, wanted) {
      assertList(list);
      const of = wanted.toLowerCase();
      if (of === '' || Buffer.byteLength(of) > lookupLimits.maxKeyBytes) return undefined;
      const id = `${list} ${of}`;
      const known = answers.get(id);
      if (known && clock.monotonicMs() - known.askedAtMs < freshMs) return current(known.stored);
      let asking = asked.get(id);
      if (!asking) {
        asking = ask(id, list, of).finally(() => asked.delete(id));
        asked.set(id, asking);
      }
      return current(await asking);
    },

    async set(list, entries) {
      assertList(list);
      const checked = checkedEntries(entries);
      for (let at = 0; at < checked.length; at += perTransaction) {
        const some = checked.slice(at, at + perTransaction);
        await kv.transact(async (tx) => writeEntries(tx, list, some), { label: 'lookup-set' });
        for (const { key: of } of some) answers.delete(`${list} ${of}`);
      }
    },

    async remove(list, keys) {
      assertList(list);
      const lower = [...new Set(keys.map((of) => of.toLowerCase()))].filter(
        (of) => Buffer.byteLength(of) <= lookupLimits.maxKeyBytes,
      );
      let removed = 0;
      for (let at = 0; at < lower.length; at += perTransaction) {
        const some = lower.slice(at, at + perTransaction);
        let before: number | undefined;
        removed += await kv.transact(
          async (tx) => {
            const keysOf = some.map((of) => recordKey(entryTable, list, of));
            const found = await tx.getMany(keysOf);
            for (const storeKey of keysOf) tx.clear(storeKey);
            const there = found.filter((value) => value && !isOver(decodeEntry(value).expiresAtMs)).length;
            // What is gone in a second run was removed by the first.
            before = tx.mayHaveCommitted ? Math.max(before ?? 0, there) : there;
            return before;
          },
          { label: 'lookup-set' },
        );
        for (const of of some) answers.delete(`${list} ${of}`);
      }
      return removed;
    },

    async entries(list, { afterKey, limit = defaultPage } = {}) {
      assertList(list);
      const range = keysUnder(subspace.lookups, 'entry', list);
      const wanted = Math.min(limit, lookupLimits.maxEntriesPerCall);
      let begin = afterKey === undefined ? range.begin : keyAfter(recordKey(entryTable, list, afterKey.toLowerCase()));
      const found: LookupEntry[] = [];
      while (found.length < wanted) {
        const from = begin;
        const readPage = (reads: KvReads) => reads.getRange(from, range.end, { limit: perTransaction });
        const page = await kv.read(readPage, { label: 'lookup-list' });
        for (const { key: storeKey, value } of page) {
          const stored = decodeEntry(value);
          if (isOver(stored.expiresAtMs) || found.length >= wanted) continue;
          const { expiresAtMs } = stored;
          found.push({
            key: keyItems(storeKey)[3] as string,
            value: stored.value,
            ...(expiresAtMs !== undefined && { expiresAtMs }),
          });
        }
        if (page.length < perTransaction) break;
        begin = keyAfter(page.at(-1)!.key);
      }
      return found;
    },

    lists() {
      return kv.read(
        async (reads) => {
          const names: string[] = [];
          let { begin } = keysUnder(subspace.lookups, 'entry');
          const { end } = keysUnder(subspace.lookups, 'entry');
          for (;;) {
            const [first] = await reads.getRange(begin, end, { limit: 1 });
            if (!first) return names;
            const name = keyItems(first.key)[2] as string;
            names.push(name);
            // Over all its other entries to the next list.
            begin = keysUnder(subspace.lookups, 'entry', name).end;
          }
        },
        { label: 'lookup-list' },
      );
    },

    async forgetExpired(nowMs, assert) {
      await purgeExpired(kv, entryTable, nowMs, assert);
    },
  };
}

function writeEntries(tx: KvTransaction, list: string, entries: readonly LookupEntry[]): void {
  for (const { key: of, value, expiresAtMs } of entries) {
    tx.set(recordKey(entryTable, list, of), encodeEntry({ value, expiresAtMs }));
    if (expiresAtMs !== undefined) indexExpiry(tx, entryTable, [list, of], expiresAtMs);
  }
}

const listForm = /^[a-z0-9-]+$/;

function assertList(list: string): void {
  if (list.length <= lookupLimits.maxListNameBytes && listForm.test(list)) return;
  throw new RangeError(
    `a list's name has 1 to ${lookupLimits.maxListNameBytes} of a-z, 0-9 and '-': ${JSON.stringify(list.slice(0, 100))}`,
  );
}

/** With lowered keys; the last one of those with the same key. */
function checkedEntries(entries: readonly LookupEntry[]): LookupEntry[] {
  const { maxEntriesPerCall, maxKeyBytes, maxValueBytes } = lookupLimits;
  if (entries.length > maxEntriesPerCall) throw new RangeError(`at most ${maxEntriesPerCall} entries at a time`);
  const byKey = new Map<string, LookupEntry>();
  for (const entry of entries) {
    const of = entry.key.toLowerCase();
    const shown = JSON.stringify(of.slice(0, 100));
    if (of === '' || Buffer.byteLength(of) > maxKeyBytes) throw new RangeError(`a key has 1 to ${maxKeyBytes} bytes: ${shown}`);
    if (Buffer.byteLength(entry.value) > maxValueBytes)
      throw new RangeError(`the value of ${shown} has more than ${maxValueBytes} bytes`);
    const { expiresAtMs } = entry;
    if (expiresAtMs !== undefined && !(Number.isSafeInteger(expiresAtMs) && expiresAtMs >= 0)) {
      throw new RangeError(`the end of ${shown} is no time in milliseconds`);
    }
    byKey.set(of, { ...entry, key: of });
  }
  return [...byKey.values()];
}
