/**
 * The change log of an account: one set of changes per modseq, whole entries included, so that who follows the log needs no further
 * reads. Strings that recur (ids) are written once per value.
 */
import { type KvReads, keyAfter } from '../kv/contract.js';
import type { Change, ChangeSet } from './contract.js';
import type { AccountKeys } from './keys.js';
import { decodeKeywords, encodeKeywords } from './keywords.js';
import { packValue, unpackValue } from './records.js';

const format = 1;
/** Below the store's limit for one value; a longer set is written in parts under the same modseq. */
const maxValueBytes = 90_000;
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
] as const satisfies readonly Change['kind'][];
const codeOf = new Map<Change['kind'], number>(kinds.map((kind, code) => [kind, code]));

type Item = (number | readonly string[])[];

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
      const places = [code, table.place(change.mailboxId), entry.uid, table.place(entry.emailId), entry.isDeleted ? 1 : 0];
      return [...places, bits, others, entry.sizeBytes, entry.receivedAtMs, entry.savedAtMs];
    }
    case 'entry-removed':
      return [code, table.place(change.mailboxId), change.uid, table.place(change.emailId)];
    case 'email-created':
    case 'email-updated':
    case 'email-destroyed':
      return [code, table.place(change.emailId), table.place(change.threadId)];
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
    default:
      throw new Error('unknown kind of change in the log');
  }
}

function encodePart(changes: readonly Change[]): { strings: string[]; items: Item[] } {
  const table = new StringTable();
  const items = changes.map((change) => encodeChange(change, table));
  return { strings: table.strings, items };
}

/** Parts that fit one value each; almost always one. */
function split(changes: readonly Change[]): { strings: string[]; items: Item[] }[] {
  const part = encodePart(changes);
  if (changes.length === 1 || packValue([part.strings, part.items]).length <= maxValueBytes) return [part];
  const middle = changes.length >> 1;
  return [...split(changes.slice(0, middle)), ...split(changes.slice(middle))];
}

/**
 * The values of one set of changes, to be written at parts 0, 1, … of its modseq. `token` names the attempt that writes them; it stands in
 * the first.
 */
export function encodeLog(changes: readonly Change[], token: Buffer): Buffer[] {
  const whole = encodePart(changes);
  const single = packValue([format, token, 1, whole.strings, whole.items]);
  if (single.length <= maxValueBytes) return [single];
  const parts = split(changes);
  return parts.map((part, place) => packValue([format, place === 0 ? token : 0, parts.length, part.strings, part.items]));
}

/** Whether this log value was written by the attempt that `token` names. */
export function isWrittenBy(value: Buffer, token: Buffer): boolean {
  const [, written] = unpackValue(value, 'log') as [number, Buffer | 0];
  return written !== 0 && token.equals(written);
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
      const [, , parts, strings, items] = unpackValue(row.value, 'log') as [number, unknown, number, string[], Item[]];
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
