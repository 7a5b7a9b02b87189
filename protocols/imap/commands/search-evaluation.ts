/**
 * Whether a message matches a SEARCH program, decided from as little as possible: first the index entry, then the summary, then the message's
 * bytes. At each stage a key is true, false, or unknown as yet.
 */
import type { MailboxEntry } from '../../../store/mail/contract.js';
import {
  decodeBody,
  decodeHeaderText,
  decodeText,
  type EnvelopeAddress,
  fileNameOf,
  findHeaders,
  headerFields,
  htmlToText,
  type MessageSummary,
  type Part,
  parseDate,
  rawToUnicode,
  textParts,
  unfold,
} from '../../message/index.js';
import { msPerDay } from '../grammar/dates.js';
import { type SearchKey, searchText, type TextField } from '../grammar/search-keys.js';
import { inRanges, type Ranges } from '../grammar/sequence-set.js';

/** What is known of one message. */
export interface Facts {
  entry: MailboxEntry;
  summary?: MessageSummary;
  threadId?: string;
  /** The whole message. */
  bytes?: Buffer;
  /** Decoded texts of `bytes`, made once for all keys. */
  decoded?: { header?: string; body?: string };
}

/** Ranges of UIDs that the sets of the program name, resolved before the first message is looked at. */
export type ResolvedSets = ReadonlyMap<SearchKey, Ranges>;

export interface Evaluation {
  sets: ResolvedSets;
  nowMs: number;
}

export type Verdict = boolean | undefined;

export function evaluate(key: SearchKey, facts: Facts, evaluation: Evaluation): Verdict {
  const { entry } = facts;
  switch (key.kind) {
    case 'all':
      return true;
    case 'none':
      return false;
    case 'and': {
      let verdict: Verdict = true;
      for (const inner of key.keys) {
        const one = evaluate(inner, facts, evaluation);
        if (one === false) return false;
        if (one === undefined) verdict = undefined;
      }
      return verdict;
    }
    case 'or': {
      const left = evaluate(key.left, facts, evaluation);
      if (left) return true;
      const right = evaluate(key.right, facts, evaluation);
      if (right) return true;
      return left === undefined || right === undefined ? undefined : false;
    }
    case 'not': {
      const inner = evaluate(key.key, facts, evaluation);
      return inner === undefined ? undefined : !inner;
    }
    case 'keyword':
      return entry.keywords.includes(key.keyword);
    case 'deleted':
      return entry.isDeleted;
    case 'sequence':
    case 'uid':
      return inRanges(evaluation.sets.get(key) ?? [], entry.uid);
    case 'larger':
      return entry.sizeBytes > key.bytes;
    case 'smaller':
      return entry.sizeBytes < key.bytes;
    case 'within': {
      const limitMs = evaluation.nowMs - key.seconds * 1000;
      // RFC 5032: YOUNGER is at most, OLDER at least so many seconds old.
      return key.relation === 'older' ? entry.receivedAtMs <= limitMs : entry.receivedAtMs >= limitMs;
    }
    case 'modseq':
      return entry.modseq >= key.atLeast;
    case 'emailid':
      return entry.emailId === key.id;
    case 'threadid':
      return facts.threadId === undefined ? undefined : facts.threadId === key.id;
    case 'date':
      return evaluateDate(key, facts);
    case 'field':
      return facts.summary ? matchesField(facts.summary, key.field, key.text) : undefined;
    default:
      return evaluateText(key, facts);
  }
}

function evaluateDate(key: Extract<SearchKey, { kind: 'date' }>, facts: Facts): Verdict {
  const day =
    key.of === 'sent'
      ? sentDay(facts)
      : Math.floor((key.of === 'saved' ? facts.entry.savedAtMs : facts.entry.receivedAtMs) / msPerDay);
  if (day === undefined) return undefined;
  if (key.relation === 'before') return day < key.day;
  return key.relation === 'on' ? day === key.day : day >= key.day;
}

/** RFC 9051 6.4.4: the date as the sender wrote it, zone disregarded; the day of arrival where there is none. */
function sentDay({ entry, summary }: Facts): number | undefined {
  if (!summary) return undefined;
  const date = summary.envelope.date === null ? undefined : parseDate(summary.envelope.date);
  return Math.floor((date ? date.epochMs + date.offsetMinutes * 60_000 : entry.receivedAtMs) / msPerDay);
}

function addressText(addresses: readonly EnvelopeAddress[]): string {
  let text = '';
  for (const { name, mailbox, host } of addresses) {
    if (name !== null) text += `${decodeHeaderText(name)} `;
    if (mailbox !== null) text += `<${rawToUnicode(mailbox)}${host === null ? '' : `@${rawToUnicode(host)}`}>\n`;
  }
  return text;
}

function matchesField(summary: MessageSummary, field: TextField, text: string): boolean {
  const { envelope } = summary;
  if (field === 'subject') return searchText(decodeHeaderText(envelope.subject ?? '')).includes(text);
  return searchText(addressText(envelope[field])).includes(text);
}

function evaluateText(key: Extract<SearchKey, { kind: 'header' | 'body' | 'text' }>, facts: Facts): Verdict {
  const { summary, bytes } = facts;
  if (!summary || !bytes) return undefined;
  const { headerStart, headerEnd } = summary.structure;
  const decoded = (facts.decoded ??= {});
  if (key.kind === 'header') {
    const values = findHeaders(bytes, { headerStart, headerEnd }, key.name);
    // An empty text asks whether the field is there at all.
    return values.some((value) => key.text === '' || searchText(decodeHeaderText(value)).includes(key.text));
  }
  if (key.text === '') return true;
  decoded.body ??= searchText(bodyText(bytes, summary.structure));
  if (decoded.body.includes(key.text)) return true;
  if (key.kind === 'body') return false;
  decoded.header ??= searchText(headerText(bytes, summary.structure));
  return decoded.header.includes(key.text);
}

function headerText(bytes: Buffer, root: Part): string {
  let text = '';
  for (const { name, valueStart, end } of headerFields(bytes, root)) {
    text += `${name}: ${decodeHeaderText(unfold(bytes.toString('latin1', valueStart, end)))}\n`;
  }
  return text;
}

/** Longest text that is taken from one message. */
const maxBodyChars = 16_777_216;

/** All that can be read in a message: its text parts decoded, HTML also without markup, names of attachments, headers of embedded messages. */
function bodyText(bytes: Buffer, structure: Part): string {
  let text = '';
  for (const part of textParts(structure, { embedded: true })) {
    const decoded = decodeText(bytes, part);
    text += decoded;
    text += '\n';
    if (part.subtype === 'html') text += `${htmlToText(decoded, decoded.length)}\n`;
    if (text.length > maxBodyChars) break;
  }
  return text + namesAndHeaders(bytes, structure, 0);
}

const maxDepth = 64;

function namesAndHeaders(bytes: Buffer, part: Part, depth: number): string {
  if (depth > maxDepth) return '';
  const name = fileNameOf(part);
  let text = name === undefined ? '' : `${name}\n`;
  for (const child of part.children ?? []) text += namesAndHeaders(bytes, child, depth + 1);
  if (part.message && part.message.structure !== part) {
    text += headerText(bytes, part.message.structure) + namesAndHeaders(bytes, part.message.structure, depth + 1);
  } else if (part.type === 'message' && !part.message) {
    text += decodeBody(bytes, part).toString('latin1');
  }
  return text;
}

/** Whether a program needs more than the index for some message. */
export function needsOf(key: SearchKey): { threadId: boolean } {
  if (key.kind === 'threadid') return { threadId: true };
  const inner = key.kind === 'and' ? key.keys : key.kind === 'or' ? [key.left, key.right] : key.kind === 'not' ? [key.key] : [];
  return { threadId: inner.some((one) => needsOf(one).threadId) };
}
