/**
 * The change log of an account: one set of changes per modseq, whole entries included, so that who follows the log needs no further
 * reads. Strings that recur (ids) are written once per value.
 */
import { type KvReads, keyAfter } from '../kv/contract.js';
import type { Change, ChangeSet } from './contract.js';
import { type PackedChange, packChange, unpackChange } from './flag-ranges.js';
import type { AccountKeys } from './keys.js';
import { decodeKeywords, encodeKeywords } from './keywords.js';
import { type LogRows, logPartValue } from './log-rows.js';
import { packValue, unpackValue } from './records.js';
import { packRanges, unpackRanges } from './uid-ranges.js';

const format = 1;
/** Of values that tell of ranges, which an earlier release must not pass over. */
const rangeFormat = 2;
/** Below the store's limit for one value; a longer set is written in parts under the same modseq. */
export const maxLogValueBytes = 90_000;
const rowsPerRead = 64;
/** Codes of change kinds; never reordered. */
const kinds = [
  'entry-added',
  'entry-changed',
  'entry-removed',
  'email-created',
  'email-updated',
  'email-destroyed',
  'mailbox-created',
  'mailbox-updated',
  'mailbox-destroyed',
  'flags-changed',
] as const satisfies readonly Change['kind'][];
const codeOf = new Map<Change['kind'], number>(kinds.map((kind, code) => [kind, code]));

type Item = (number | readonly string[] | Buffer | PackedChange)[];

class StringTable {
  readonly strings: string[] = [];
  private readonly places = new Map<string, number>();
  place(text: string): number {
    let place = this.places.get(text);
    if (place === undefined) {
      place = this.strings.push(text) - 1;
      this.places.set(text, place);
    }
    return place;
  }
}

function encodeChange(change: Change, table: StringTable): Item {
  const code = codeOf.get(change.kind)!;
  switch (change.kind) {
    case 'entry-added':
    case 'entry-changed': {
      const { entry } = change;
      const { bits, others } = encodeKeywords(entry.keywords);
      const mailbox = table.place(change.mailboxId);
      const email = table.place(entry.emailId);
      const isDeleted = entry.isDeleted ? 1 : 0;
      return [code, mailbox, entry.uid, email, isDeleted, bits, others, entry.sizeBytes, entry.receivedAtMs, entry.savedAtMs];
    }
    case 'entry-removed':
      return [code, table.place(change.mailboxId), change.uid, table.place(change.emailId)];
    case 'email-created':
    case 'email-updated':
    case 'email-destroyed':
      return [code, table.place(change.emailId), table.place(change.threadId)];
    case 'flags-changed':
      return [code, table.place(change.mailboxId), packRanges(change.range.uids), packChange(change.range.change)];
    default:
      return [code, table.place(change.mailboxId)];
  }
}

function decodeChange(item: Item, strings: readonly string[], modseq: number): Change {
  const kind = kinds[item[0] as number];
  const text = (at: number) => strings[item[at] as number]!;
  const whole = (at: number) => item[at] as number;
  switch (kind) {
    case 'entry-added':
    case 'entry-changed': {
      const keywords = decodeKeywords(whole(5), item[6] as readonly string[] | 0);
      const entry = {
        uid: whole(2),
        emailId: text(3),
        isDeleted: item[4] === 1,
        modseq,
        keywords,
        sizeBytes: whole(7),
        receivedAtMs: whole(8),
        savedAtMs: whole(9),
      };
      return { kind, mailboxId: text(1), entry };
    }
    case 'entry-removed':
      return { kind, mailboxId: text(1), uid: whole(2), emailId: text(3) };
    case 'email-created':
    case 'email-updated':
    case 'email-destroyed':
      return { kind, emailId: text(1), threadId: text(2) };
    case 'mailbox-created':
    case 'mailbox-updated':
    case 'mailbox-destroyed':
      return { kind, mailboxId: text(1) };
    case 'flags-changed': {
      const [uids, change] = [unpackRanges(item[2] as Buffer), unpackChange(item[3] as PackedChange)];
      return { kind, mailboxId: text(1), range: { modseq, uids, change } };
    }
    default:
      throw new Error('unknown kind of change in the log');
  }
}

const formatOf = (changes: readonly Change[]) => (changes.some(({ kind }) => kind === 'flags-changed') ? rangeFormat : format);

function unpackLog(value: Buffer): unknown[] {
  return unpackValue(value, 'log', rangeFormat);
}

function encodePart(changes: readonly Change[]): { strings: string[]; items: Item[] } {
  const table = new StringTable();
  const items = changes.map((change) => encodeChange(change, table));
  return { strings: table.strings, items };
}

/** Parts that fit one value each; almost always one. */
function split(changes: readonly Change[]): { strings: string[]; items: Item[] }[] {
  const part = encodePart(changes);
  if (changes.length === 1 || packValue([part.strings, part.items]).length <= maxLogValueBytes) return [part];
  const middle = changes.length >> 1;
  return [...split(changes.slice(0, middle)), ...split(changes.slice(middle))];
}

/**
 * The values of one set of changes, to be written at parts 0, 1, … of its modseq. `token` names the attempt that writes them; it stands in
 * the first. `rows`: changed flags of the same set.
 */
export function encodeLog(changes: readonly Change[], token: Buffer, rows?: LogRows): Buffer[] {
  const rowParts = rows?.parts() ?? [];
  const newest = formatOf(changes);
  if (rowParts.length === 0) {
    const whole = encodePart(changes);
    const single = packValue([newest, token, 1, whole.strings, whole.items]);
    if (single.length <= maxLogValueBytes) return [single];
  }
  const parts = changes.length === 0 ? [] : split(changes);
  const count = rowParts.length + parts.length;
  return [
    ...rowParts.map((part, place) => logPartValue(part, newest, place === 0 ? token : undefined, count)),
    ...parts.map((part, place) => {
      const isFirst = rowParts.length + place === 0;
      return packValue([newest, isFirst ? token : 0, count, part.strings, part.items]);
    }),
  ];
}

/** The token of the attempt that wrote this value, the first of its modseq. */
export function tokenOf(value: Buffer): Buffer | undefined {
  const [, written] = unpackLog(value) as [number, Buffer | 0];
  return written === 0 ? undefined : Buffer.from(written);
}

/** Whether this log value was written by the attempt that `token` names. */
export function isWrittenBy(value: Buffer, token: Buffer): boolean {
  const [, written] = unpackLog(value) as [number, Buffer | 0];
  return written !== 0 && token.equals(written);
}

/** The changes that the values of one set hold. */
export function readLogValues(values: readonly Buffer[], modseq: number): Change[] {
  return values.flatMap((value) => {
    const [, , , strings, items] = unpackLog(value) as [number, unknown, number, string[], Item[]];
    return items.map((item) => decodeChange(item, strings, modseq));
  });
}

/** Sets above `afterModseq`, at most `maxSets` and about `maxBytes`; a set is never cut. */
export async function readLog(
  reads: KvReads,
  keys: AccountKeys,
  afterModseq: number,
  maxSets: number,
  maxBytes = 4_000_000,
): Promise<{ sets: ChangeSet[]; hasMore: boolean }> {
  const sets: ChangeSet[] = [];
  let begin = keys.logAt(afterModseq + 1);
  let bytes = 0;
  let partsMissing = 0;
  for (;;) {
    const rows = await reads.getRange(begin, keys.allLog.end, { limit: rowsPerRead });
    for (const row of rows) {
      if (partsMissing === 0 && (sets.length >= maxSets || bytes >= maxBytes)) return { sets, hasMore: true };
      const [, , parts, strings, items] = unpackLog(row.value) as [number, unknown, number, string[], Item[]];
      bytes += row.value.length;
      if (partsMissing === 0) {
        sets.push({ modseq: keys.logModseqOf(row.key), changes: [] });
        partsMissing = parts;
      }
      const { modseq, changes } = sets.at(-1)!;
      for (const item of items) changes.push(decodeChange(item, strings, modseq));
      partsMissing--;
    }
    if (rows.length < rowsPerRead) return { sets, hasMore: false };
    begin = keyAfter(rows.at(-1)!.key);
  }
}
