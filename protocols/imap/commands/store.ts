/** STORE (RFC 9051 6.4.6) with UNCHANGEDSINCE (RFC 7162 3.1.3). */
import type { FlagMode, FlagResult, MailboxEntry } from '../../../store/mail/contract.js';
import { type Command, withMailbox } from '../command.js';
import { type SessionContext, yieldEventLoop } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { formatFlags, keywordOf } from '../grammar/format.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import { formatNumbers, readSequenceSet } from '../grammar/sequence-set.js';
import { no, ok } from '../replies.js';
import type { SelectedMailbox } from '../selected.js';

const maxFlags = 128;

export interface FlagList {
  keywords: string[];
  deleted: boolean;
}

/** A list of flags, with or without parentheses. `\Recent` can't be set and is ignored (RFC 3501 2.3.2); unknown `\Flags` are refused. */
export function readFlags(cursor: Cursor, bareAllowed: boolean): FlagList {
  const list: FlagList = { keywords: [], deleted: false };
  let count = 0;
  const readOne = () => {
    if (++count > maxFlags) throw new ImapSyntaxError('Too many flags', 'LIMIT', 'NO');
    const flag = cursor.flag();
    const keyword = keywordOf(flag);
    if (keyword) list.keywords.push(keyword);
    else if (flag.toLowerCase() === '\\deleted') list.deleted = true;
    else if (flag.toLowerCase() !== '\\recent') cursor.fail('Unknown system flag');
  };
  if (cursor.sees('(') || !bareAllowed) cursor.list(readOne, true);
  else {
    do readOne();
    while (cursor.takes(' ') && !cursor.isAtEnd);
  }
  return list;
}

interface StoreRequest {
  mode: FlagMode;
  silent: boolean;
  flags: FlagList;
  unchangedSince?: number;
}

function readRequest(cursor: Cursor): StoreRequest {
  let unchangedSince: number | undefined;
  if (cursor.sees('(')) {
    cursor.list(() => {
      if (cursor.word() !== 'UNCHANGEDSINCE') cursor.fail('Unknown STORE modifier');
      cursor.space();
      unchangedSince = cursor.number64();
    });
    cursor.space();
  }
  const mode: FlagMode = cursor.takes('+') ? 'add' : cursor.takes('-') ? 'remove' : 'replace';
  const item = cursor.word();
  if (item !== 'FLAGS' && item !== 'FLAGS.SILENT') cursor.fail('Expected FLAGS');
  cursor.space();
  const flags = readFlags(cursor, true);
  return { mode, silent: item === 'FLAGS.SILENT', flags, ...(unchangedSince === undefined ? {} : { unchangedSince }) };
}

/** What the flags of an entry become if nobody else changes them. */
function expectedFlags(before: MailboxEntry, { mode, flags }: StoreRequest): string {
  const keywords = new Set(mode === 'replace' ? [] : before.keywords);
  for (const keyword of flags.keywords) {
    if (mode === 'remove') keywords.delete(keyword);
    else keywords.add(keyword);
  }
  let isDeleted = mode === 'replace' ? flags.deleted : before.isDeleted;
  if (flags.deleted && mode !== 'replace') isDeleted = mode === 'add';
  return `${[...keywords].sort().join(' ')} ${isDeleted}`;
}

function flagsNow(entry: MailboxEntry): string {
  return `${[...entry.keywords].sort().join(' ')} ${entry.isDeleted}`;
}

export const store: Command = {
  name: 'STORE',
  states: withMailbox,
  takesUid: true,
  holdsExpunges: true,
  async run(context, cursor, { byUid }) {
    cursor.space();
    const set = readSequenceSet(cursor);
    cursor.space();
    const request = readRequest(cursor);
    cursor.end();
    if (request.unchangedSince !== undefined) context.enabled.add('CONDSTORE');
    const selected = context.requireWritable();
    await context.refreshView();
    const uids = context.resolve(set, byUid);
    const outcome = await apply(context, selected, uids, request);
    const code = outcome.modified.length > 0 ? `MODIFIED ${namesOf(selected, outcome.modified, byUid)}` : undefined;
    // RFC 2180 4.2.2: told NO when a message that the client still numbers is gone; by UID that is no error.
    if (outcome.missing > 0 && !byUid && !request.silent) return no('Some of the messages no longer exist', 'EXPUNGEISSUED');
    return ok(outcome.modified.length > 0 ? 'Conditional STORE failed for some' : 'STORE completed', code);
  },
};

function namesOf(selected: SelectedMailbox, uids: readonly number[], byUid: boolean): string {
  const sorted = [...uids].sort((a, b) => a - b);
  return formatNumbers(byUid ? sorted : sorted.map((uid) => selected.sequenceOf(uid)).filter((sequence) => sequence > 0));
}

/** Messages whose flags are changed and answered before others get a turn. */
const batchSize = 500;

async function apply(
  context: SessionContext,
  selected: SelectedMailbox,
  uids: readonly number[],
  request: StoreRequest,
): Promise<{ modified: number[]; missing: number }> {
  const { mail } = context.services;
  const modified: number[] = [];
  let missing = 0;
  for (let from = 0; from < uids.length; from += batchSize) {
    const batch = uids.slice(from, from + batchSize);
    const expected = request.silent ? new Map(batch.map((uid) => [uid, expectedOf(selected, uid, request)])) : undefined;
    const result = await mail.changeFlags(context.accountId, selected.mailbox.id, batch, {
      mode: request.mode,
      keywords: request.flags.keywords,
      deleted: request.flags.deleted,
      ...(request.unchangedSince === undefined ? {} : { unchangedSince: request.unchangedSince }),
    });
    modified.push(...result.modified);
    missing += batch.length - new Set([...result.entries.map(({ uid }) => uid), ...result.modified]).size;
    answer(context, selected, result, request, expected);
    await context.output.ready();
    if (from + batchSize < uids.length) await yieldEventLoop();
  }
  return { modified, missing };
}

function expectedOf(selected: SelectedMailbox, uid: number, request: StoreRequest): string | undefined {
  const before = selected.index.get(uid);
  return before && expectedFlags(before, request);
}

function answer(
  context: SessionContext,
  selected: SelectedMailbox,
  result: FlagResult,
  request: StoreRequest,
  expected: Map<number, string | undefined> | undefined,
): void {
  const refused = new Set(result.modified);
  for (const entry of result.entries) {
    if (refused.has(entry.uid)) continue;
    const sequence = selected.sequenceOf(entry.uid);
    if (sequence === 0) continue;
    // RFC 9051 6.4.6: .SILENT hides what the client knows, not what somebody else did at the same time.
    const isSurprise = expected !== undefined && expected.get(entry.uid) !== flagsNow(entry);
    const parts = [`UID ${entry.uid}`];
    if (!request.silent || isSurprise) parts.push(`FLAGS ${formatFlags(entry.keywords, entry.isDeleted)}`);
    // RFC 7162 3.1.3: the new modseq is told also with .SILENT.
    if (context.condstore) parts.push(`MODSEQ (${entry.modseq})`);
    if (parts.length > 1) context.untagged(`${sequence} FETCH (${parts.join(' ')})`);
    selected.markKnown(entry);
  }
}
