/**
 * Whether a message matches a SEARCH program, decided from its summary or its bytes, for messages where the columns of the index are not enough. Texts are
 * compared as `foldText` leaves them, in exactly those texts that the full-text index is filled with (`protocols/message/search-text.ts`).
 */
import type { MailboxEntry } from '../../../store/mail/contract.js';
import {
  addressText,
  bodyText,
  decodeHeaderText,
  findHeaders,
  headerText,
  type MessageSummary,
  parseDate,
  subjectText,
} from '../../message/index.js';
import { msPerDay } from '../grammar/dates.js';
import { type SearchKey, searchText, type TextField } from '../grammar/search-keys.js';
import { inRanges } from '../grammar/sequence-set.js';
import type { Surroundings } from './program.js';

/** Shorter fields are whole in every summary (`maxTextFieldBytes` of the message limits). */
const maxWholeFieldChars = 900;

/** What is known of one message. */
export interface Facts {
  entry: MailboxEntry;
  summary: MessageSummary;
  threadId?: string;
  /** The whole message. */
  bytes?: Buffer;
  /** Texts made once for all keys. */
  folded?: Map<string, string>;
}

/** Undefined: only the message itself (or its thread) can tell. */
export function evaluate(key: SearchKey, facts: Facts, around: Surroundings): boolean | undefined {
  const { entry } = facts;
  switch (key.kind) {
    case 'all':
      return true;
    case 'none':
      return false;
    case 'and':
      return evaluateAnd(key.keys, facts, around);
    case 'or': {
      const left = evaluate(key.left, facts, around);
      if (left) return true;
      const right = evaluate(key.right, facts, around);
      return right ? true : left === undefined ? undefined : right;
    }
    case 'not': {
      const inner = evaluate(key.key, facts, around);
      return inner === undefined ? undefined : !inner;
    }
    case 'keyword':
      return entry.keywords.includes(key.keyword);
    case 'deleted':
      return entry.isDeleted;
    case 'sequence':
    case 'uid':
    case 'recent':
      return inRanges(around.sets.get(key) ?? [], entry.uid);
    case 'larger':
      return entry.sizeBytes > key.bytes;
    case 'smaller':
      return entry.sizeBytes < key.bytes;
    case 'within': {
      const limitMs = around.nowMs - key.seconds * 1000;
      return key.relation === 'older' ? entry.receivedAtMs <= limitMs : entry.receivedAtMs >= limitMs;
    }
    case 'modseq':
      return entry.modseq > around.comparableModseq(key.atLeast - 1);
    case 'emailid':
      return entry.emailId === key.id;
    case 'threadid':
      return facts.threadId === undefined ? undefined : facts.threadId === key.id;
    case 'date':
      return evaluateDate(key, facts);
    case 'field':
      return foldedField(facts, key.field).includes(key.text);
    case 'header':
      return evaluateHeader(key, facts);
    default:
      return evaluateText(key, facts);
  }
}

function evaluateAnd(keys: readonly SearchKey[], facts: Facts, around: Surroundings): boolean | undefined {
  let verdict: boolean | undefined = true;
  for (const inner of keys) {
    const one = evaluate(inner, facts, around);
    if (one === false) return false;
    if (one === undefined) verdict = undefined;
  }
  return verdict;
}

function evaluateDate({ of, relation, day }: Extract<SearchKey, { kind: 'date' }>, facts: Facts): boolean {
  const { entry } = facts;
  const its = of === 'sent' ? sentDay(facts) : Math.floor((of === 'saved' ? entry.savedAtMs : entry.receivedAtMs) / msPerDay);
  if (relation === 'before') return its < day;
  return relation === 'on' ? its === day : its >= day;
}

/** RFC 9051 6.4.4: the date as the sender wrote it, zone disregarded; the day of arrival where there is none. */
function sentDay({ entry, summary }: Facts): number {
  const date = summary.envelope.date === null ? undefined : parseDate(summary.envelope.date);
  return Math.floor((date ? date.epochMs + date.offsetMinutes * 60_000 : entry.receivedAtMs) / msPerDay);
}

function folded(facts: Facts, name: string, make: () => string): string {
  facts.folded ??= new Map();
  let text = facts.folded.get(name);
  if (text === undefined) {
    text = searchText(make());
    facts.folded.set(name, text);
  }
  return text;
}

function foldedField(facts: Facts, field: TextField): string {
  const { envelope } = facts.summary;
  return folded(facts, field, () => (field === 'subject' ? subjectText(envelope.subject) : addressText(envelope[field])));
}

function evaluateHeader({ name, text }: Extract<SearchKey, { kind: 'header' }>, facts: Facts): boolean | undefined {
  const { bytes, summary } = facts;
  // What many clients ask for to find one message again. RFC 5322 3.6: it occurs once; a longer one may be cut in the summary.
  if (!bytes && name === 'message-id') {
    const own = summary.envelope.messageId;
    // The summary has nothing for an empty field either, which is there all the same.
    if (own === null) return text === '' ? undefined : false;
    if (searchText(decodeHeaderText(own)).includes(text)) return true;
    if (own.length < maxWholeFieldChars) return false;
  }
  if (!bytes) return undefined;
  const { headerStart, headerEnd } = summary.structure;
  const values = findHeaders(bytes, { headerStart, headerEnd }, name);
  // An empty text asks whether the field is there at all.
  return values.some((value) => text === '' || searchText(decodeHeaderText(value)).includes(text));
}

function evaluateText({ kind, text }: Extract<SearchKey, { kind: 'body' | 'text' }>, facts: Facts): boolean | undefined {
  const { bytes, summary } = facts;
  if (text === '') return true;
  if (!bytes) return undefined;
  if (folded(facts, 'body', () => bodyText(bytes, summary.structure)).includes(text)) return true;
  return kind === 'text' && folded(facts, 'header', () => headerText(bytes, summary.structure)).includes(text);
}

/** Whether some key asks for the thread. */
export function needsThreadId(key: SearchKey): boolean {
  if (key.kind === 'threadid') return true;
  if (key.kind === 'and') return key.keys.some(needsThreadId);
  if (key.kind === 'or') return needsThreadId(key.left) || needsThreadId(key.right);
  return key.kind === 'not' && needsThreadId(key.key);
}
