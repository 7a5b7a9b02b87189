/** What a change of flags makes of each entry, and the rows that it has to read for that. Pure but for the reads. */
import type { KvReads } from '../kv/contract.js';
import type { FlagChange, MailboxId } from './contract.js';
import { getDense } from './dense-reads.js';
import { idOffset } from './entry-row.js';
import { decodeFlagRanges, type FlagRangeList, foldRow, isListed } from './flag-ranges.js';
import { EntryFlags, flagsOffset, MessageFlags } from './flag-rows.js';
import type { AccountKeys } from './keys.js';
import { canonicalKeywords, encodeKeywords } from './keywords.js';
import { decodeEntry } from './records.js';

/** A change with its keywords in canonical form. */
export interface AskedFlags extends FlagChange {
  keywords: readonly string[];
}

/**
 * `refused`: changed since (RFC 7162 3.1.3). `same`: stays as it is. `patched`: the bytes of its rows are changed. `unusual`: its rows are decoded, because of
 * uncommon keywords, other mailboxes, or a form that is not known here.
 */
export type RowKind = 'absent' | 'refused' | 'same' | 'patched' | 'unusual';

/** The rows of some UIDs; all lists have the length of `uids`. */
export interface PartRows {
  uids: readonly number[];
  kinds: RowKind[];
  entryKeys: readonly Buffer[];
  entries: readonly (Buffer | undefined)[];
  /** Keyword bits that a patched entry gets. */
  bits: number[];
  /** Only of patched entries whose keywords change, or that a range names. */
  messageKeys: (Buffer | undefined)[];
  messages: (Buffer | undefined)[];
  /** Entries are as these make them. Rows of messages that they name may be older. */
  ranges: FlagRangeList;
}

export async function readPart(
  reads: KvReads,
  keys: AccountKeys,
  mailboxId: MailboxId,
  uids: readonly number[],
  change: AskedFlags,
  hasRanges: boolean,
): Promise<PartRows> {
  const entryKeys = uids.map((uid) => keys.entry(mailboxId, uid));
  const [stored, rangesRow] = await Promise.all([
    getDense(reads, entryKeys, keys.density.entries),
    hasRanges ? reads.get(keys.flagRanges(mailboxId)) : undefined,
  ]);
  const ranges = decodeFlagRanges(rangesRow);
  const entries = ranges.length === 0 ? stored : stored.map((row, at) => row && foldRow(uids[at]!, row, ranges));
  const rows: PartRows = {
    uids,
    kinds: new Array(uids.length).fill('absent'),
    entryKeys,
    entries,
    bits: new Array(uids.length).fill(0),
    messageKeys: new Array(uids.length).fill(undefined),
    messages: new Array(uids.length).fill(undefined),
    ranges,
  };
  const places = planEntries(rows, keys, change);
  const asked = places.map((at) => rows.messageKeys[at]!);
  const messages = await getDense(reads, asked, keys.density.messages);
  const idBytes = Buffer.from(mailboxId, 'latin1');
  const flags = new MessageFlags();
  places.forEach((at, place) => {
    const message = messages[place];
    if (message && flags.read(message, idBytes)) rows.messages[at] = message;
    else rows.kinds[at] = 'unusual';
  });
  return rows;
}

/** Fills in all but the messages; answers the places that need one. */
function planEntries(rows: PartRows, keys: AccountKeys, change: AskedFlags): number[] {
  const flags = new EntryFlags();
  const wanted = wantedBits(change);
  const { unchangedSince = Number.POSITIVE_INFINITY } = change;
  const places: number[] = [];
  rows.entries.forEach((row, at) => {
    if (!row) return;
    if (!flags.read(row)) {
      rows.kinds[at] = decodeEntry(rows.uids[at]!, row).modseq > unchangedSince ? 'refused' : 'unusual';
    } else if (flags.modseq > unchangedSince) rows.kinds[at] = 'refused';
    else if (!wanted) rows.kinds[at] = 'unusual';
    else {
      const bits = wanted(flags.bits);
      rows.bits[at] = bits;
      const isSame = bits === flags.bits && wantedDeleted(flags.isDeleted, change) === flags.isDeleted;
      rows.kinds[at] = isSame ? 'same' : 'patched';
      // The row of a message that a range names is brought up to date with its entry, whose own row is not named any more then.
      if (isSame || (bits === flags.bits && !isListed(rows.ranges, rows.uids[at]!))) return;
      rows.messageKeys[at] = keys.messageNamedIn(row, idOffset, flagsOffset);
      places.push(at);
    }
  });
  return places;
}

/** The same as `wantedKeywords` for entries that have common keywords only; undefined where they might get others. */
function wantedBits({ mode, keywords, allowed }: AskedFlags): ((now: number) => number) | undefined {
  const { bits, others } = encodeKeywords(keywords);
  if (others !== 0 && mode !== 'remove' && (allowed?.others ?? true)) return undefined;
  const seen = encodeKeywords(['$seen']).bits;
  const mask = allowed ? (allowed.seen ? seen : 0) | (allowed.others ? ~seen : 0) : ~0;
  const given = bits & mask;
  if (mode === 'add') return (now) => now | given;
  if (mode === 'remove') return (now) => now & ~given;
  return (now) => (now & ~mask) | given;
}

export function wantedDeleted(now: boolean, change: FlagChange): boolean {
  if (change.allowed && !change.allowed.deleted) return now;
  if (change.mode === 'replace') return change.deleted;
  if (!change.deleted) return now;
  return change.mode === 'add';
}

export function wantedKeywords(now: readonly string[], change: AskedFlags): readonly string[] {
  const { allowed, keywords: given } = change;
  if (!allowed || (allowed.seen && allowed.others)) return allKeywords(now, change, given);
  const isAllowed = (keyword: string) => (keyword === '$seen' ? allowed.seen : allowed.others);
  const changed = allKeywords(now.filter(isAllowed), change, given.filter(isAllowed));
  return canonicalKeywords([...now.filter((keyword) => !isAllowed(keyword)), ...changed]);
}

function allKeywords(now: readonly string[], change: FlagChange, given: readonly string[]): readonly string[] {
  if (change.mode === 'replace') return given;
  if (given.length === 0) return now;
  if (change.mode === 'remove') return canonicalKeywords(now.filter((keyword) => !given.includes(keyword)));
  return given.every((keyword) => now.includes(keyword)) ? now : canonicalKeywords([...now, ...given]);
}
