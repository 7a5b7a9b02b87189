/** STORE (RFC 9051 6.4.6) with UNCHANGEDSINCE (RFC 7162 3.1.3). */
import type { FlagMode, FlagResult, FlagState, UidList } from '../../../store/mail/contract.js';
import { type Command, withMailbox } from '../command.js';
import { type SessionContext, yieldEventLoop } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { formatFlags, keywordOf } from '../grammar/format.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import { formatNumbers, readSequenceSet } from '../grammar/sequence-set.js';
import { repliedWithinLimit, withinLimit } from '../message-limit.js';
import { NumberedLines } from '../numbered-lines.js';
import { flagRights, ownersRights, type Right } from '../places.js';
import { no, ok, Refusal } from '../replies.js';
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

/** What flags become if nobody else changes them, as `flagsText` writes it. */
function expectedFlags(keywordsBefore: readonly string[], wasDeleted: boolean, { mode, flags }: StoreRequest): string {
  const keywords = new Set(mode === 'replace' ? [] : keywordsBefore);
  for (const keyword of flags.keywords) {
    if (mode === 'remove') keywords.delete(keyword);
    else keywords.add(keyword);
  }
  let isDeleted = mode === 'replace' ? flags.deleted : wasDeleted;
  if (flags.deleted && mode !== 'replace') isDeleted = mode === 'add';
  return flagsText([...keywords], isDeleted);
}

function flagsText(keywords: readonly string[], isDeleted: boolean): string {
  return `${[...keywords].sort().join(' ')} ${isDeleted}`;
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
    requireFlagRights(selected.place.rights, request);
    const { uids, lowestUid } = withinLimit(context, context.resolve(set, byUid));
    const outcome = await apply(context, selected, uids, request);
    const code = outcome.modified.length > 0 ? `MODIFIED ${namesOf(selected, outcome.modified, byUid)}` : undefined;
    // RFC 2180 4.2.1: the others are stored, which is no failure; that some are gone is told where the client still numbers them (RFC 5530).
    const isMissing = outcome.missing > 0 && !byUid && !request.silent;
    const reply = isMissing
      ? ok('Some of the messages no longer exist', code ?? 'EXPUNGEISSUED')
      : ok(outcome.modified.length > 0 ? 'Conditional STORE failed for some' : 'STORE completed', code);
    return repliedWithinLimit(context, reply, lowestUid);
  },
};

/** RFC 4314 section 4: what may be changed is changed; NO where that is nothing of what was asked for. */
function requireFlagRights(rights: ReadonlySet<Right>, { mode, flags }: StoreRequest): void {
  const allowed = flagRights(rights);
  const names = (keyword: string) => keyword === '$seen';
  const asksFor = {
    seen: mode === 'replace' || flags.keywords.some(names),
    deleted: mode === 'replace' || flags.deleted,
    others: mode === 'replace' || flags.keywords.some((keyword) => !names(keyword)),
  };
  const asksNothing = !asksFor.seen && !asksFor.deleted && !asksFor.others;
  const mayDo = (asksFor.seen && allowed.seen) || (asksFor.deleted && allowed.deleted) || (asksFor.others && allowed.others);
  if (!asksNothing && !mayDo) throw new Refusal(no('Permission denied', 'NOPERM'));
}

function namesOf(selected: SelectedMailbox, uids: readonly number[], byUid: boolean): string {
  const sorted = [...uids].sort((a, b) => a - b);
  return formatNumbers(byUid ? sorted : sorted.map((uid) => selected.sequenceOf(uid)).filter((sequence) => sequence > 0));
}

/** Messages of one change: one transaction where the store writes it as a range, else several, so that it can read ahead. */
const batchSize = 20_000;
/** Messages that are answered before others get a turn. */
const answersPerTurn = 4_000;
const maxKnownStates = 100;

async function apply(
  context: SessionContext,
  selected: SelectedMailbox,
  uids: UidList,
  request: StoreRequest,
): Promise<{ modified: number[]; missing: number }> {
  const { mail } = context.services;
  const modified: number[] = [];
  let missing = 0;
  for (let from = 0; from < uids.length; from += batchSize) {
    const batch = uids.subarray(from, from + batchSize);
    const expected = request.silent ? expectedOf(selected, batch, request) : undefined;
    const result = await mail.changeFlags(selected.accountId, selected.mailbox.id, Array.from(batch), {
      mode: request.mode,
      keywords: request.flags.keywords,
      deleted: request.flags.deleted,
      ...(selected.place.rights === ownersRights ? {} : { allowed: flagRights(selected.place.rights) }),
      ...(request.unchangedSince === undefined
        ? {}
        : { unchangedSince: selected.index.comparableModseq(request.unchangedSince) }),
    });
    for (const uid of result.modified) modified.push(uid);
    missing += batch.length - result.uids.length;
    await answer(context, selected, result, request, expected);
    await context.output.ready();
    if (from + batchSize < uids.length) await yieldEventLoop();
  }
  return { modified, missing };
}

/** The flags that the client expects of each of these messages (ascending), as the index shows them now; undefined for those that it does not know. */
function expectedOf(selected: SelectedMailbox, uids: UidList, request: StoreRequest): (uid: number) => string | undefined {
  const view = selected.index.view();
  const textByFlags = new Map<number, string>();
  const texts: (string | undefined)[] = new Array(uids.length);
  for (let at = 0, place = 0; at < uids.length; at++) {
    const uid = uids[at]!;
    // As a rule the next one is the next one there as well.
    if (view.uids[place] !== uid) place = view.positionOf(uid);
    if (place < 0) {
      place = 0;
      continue;
    }
    const flags = view.flagsAt(place++);
    let text = textByFlags.get(flags);
    if (text === undefined) {
      text = expectedFlags(view.keywordsOf(flags), view.isDeletedOf(flags), request);
      textByFlags.set(flags, text);
    }
    texts[at] = text;
  }
  // Asked in the order of the UIDs.
  let next = 0;
  return (uid) => {
    while (next < uids.length && uids[next]! < uid) next++;
    return uids[next] === uid ? texts[next] : undefined;
  };
}

async function answer(
  context: SessionContext,
  selected: SelectedMailbox,
  { uids, states, modified }: FlagResult,
  request: StoreRequest,
  expected: ((uid: number) => string | undefined) | undefined,
): Promise<void> {
  const refused = new Set(modified);
  const { condstore, uidOnly } = context;
  selected.tellKeywords(context.write, states);
  const firstRecent = selected.recent?.lowest ?? Number.POSITIVE_INFINITY;
  const format = new StateFormat(condstore, uidOnly ? '' : ' ');
  const announced = selected.uids;
  const lines = new NumberedLines(context.output, uidOnly ? ' UIDFETCH (' : ' FETCH (UID ', uids.length);
  let place = 0;
  for (let at = 0; at < uids.length; at++) {
    const uid = uids[at]!;
    if (refused.size > 0 && refused.has(uid)) continue;
    if (announced[place] !== uid) place = selected.sequenceOf(uid) - 1;
    if (place < 0) {
      place = 0;
      continue;
    }
    const state = states[at]!;
    const words = format.of(state, uid >= firstRecent && selected.isRecent(uid));
    // RFC 9051 6.4.6: .SILENT hides what the client knows, not what somebody else did at the same time.
    const isSurprise = expected !== undefined && expected(uid) !== words.text;
    const told = !request.silent || isSurprise ? words.flags : words.modseq;
    if (told !== '') {
      if (uidOnly) lines.add(uid, -1, told);
      else lines.add(place + 1, uid, told);
    }
    selected.markKnown(uid, state.modseq);
    place++;
    if (at % answersPerTurn === answersPerTurn - 1) {
      lines.flush();
      await context.output.ready();
      await yieldEventLoop();
    }
  }
  lines.flush();
}

interface StateWords {
  /** For comparison. */
  text: string;
  /** FLAGS, and MODSEQ where the client wants it; to the closing parenthesis. */
  flags: string;
  /** MODSEQ alone: RFC 7162 3.1.3: the new modseq is told also with .SILENT. Perhaps empty. */
  modseq: string;
}

/** The words for states of flags; most messages of a change have one of a few. */
class StateFormat {
  readonly #known = [new Map<FlagState, StateWords>(), new Map<FlagState, StateWords>()];
  #lastState: FlagState | undefined;
  #lastRecent = false;
  #last: StateWords | undefined;

  /** `before` stands in front of the words. */
  constructor(
    private readonly withModseq: boolean,
    private readonly before: string,
  ) {}

  of(state: FlagState, isRecent: boolean): StateWords {
    if (this.#last === undefined || state !== this.#lastState || isRecent !== this.#lastRecent) {
      this.#last = this.#find(state, isRecent);
      this.#lastState = state;
      this.#lastRecent = isRecent;
    }
    return this.#last;
  }

  #find(state: FlagState, isRecent: boolean): StateWords {
    const known = this.#known[isRecent ? 1 : 0]!;
    let words = known.get(state);
    if (!words) {
      const modseq = this.withModseq ? `MODSEQ (${state.modseq})` : '';
      const flags = `FLAGS ${formatFlags(state.keywords, state.isDeleted, isRecent)}${this.withModseq ? ` ${modseq}` : ''}`;
      words = {
        text: flagsText(state.keywords, state.isDeleted),
        flags: `${this.before}${flags})`,
        modseq: modseq && `${this.before}${modseq})`,
      };
      if (known.size >= maxKnownStates) known.clear();
      known.set(state, words);
    }
    return words;
  }
}
