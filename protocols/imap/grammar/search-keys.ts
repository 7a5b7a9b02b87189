/**
 * SEARCH programs (RFC 9051 6.4.4 and RFC 3501 6.4.4; WITHIN, CONDSTORE, OBJECTID, SAVEDATE): read into a tree with limited depth and size.
 */
import iconv from 'iconv-lite';
import { foldText } from '../../../store/search/analysis/fold.js';
import type { Cursor } from './cursor.js';
import { readDate } from './dates.js';
import { keywordOf } from './format.js';
import { ImapSyntaxError } from './limits.js';
import { readSequenceSet, type SequenceSet } from './sequence-set.js';

export type TextField = 'from' | 'to' | 'cc' | 'bcc' | 'subject';

/** Texts are Unicode, lower case, NFC; dates are day numbers since the epoch. */
export type SearchKey =
  | { kind: 'all' }
  | { kind: 'none' }
  | { kind: 'keyword'; keyword: string }
  | { kind: 'deleted' }
  | { kind: 'recent' }
  | { kind: 'and'; keys: SearchKey[] }
  | { kind: 'or'; left: SearchKey; right: SearchKey }
  | { kind: 'not'; key: SearchKey }
  | { kind: 'sequence' | 'uid'; set: SequenceSet }
  | { kind: 'larger' | 'smaller'; bytes: number }
  | { kind: 'date'; of: 'received' | 'sent' | 'saved'; relation: 'before' | 'on' | 'since'; day: number }
  | { kind: 'within'; relation: 'older' | 'younger'; seconds: number }
  | { kind: 'modseq'; atLeast: number }
  | { kind: 'emailid' | 'threadid'; id: string }
  | { kind: 'field'; field: TextField; text: string }
  | { kind: 'header'; name: string; text: string }
  | { kind: 'body' | 'text'; text: string };

/** What is looked for, as SEARCH, SORT and THREAD share it. */
export interface SearchCriteria {
  key: SearchKey;
  /** A MODSEQ key occurs: the response carries the highest modseq (RFC 7162 3.1.5). */
  usesModseq: boolean;
  /** A sequence number occurs (not `$`, not UIDs). */
  usesSequences: boolean;
}

/** BODY and TEXT keys of one program: each looks through all of a message, which nobody can interrupt. */
const maxTextKeys = 32;
/** Keys of one program; a line is full before. */
const maxKeys = 32_768;

interface Reading {
  cursor: Cursor;
  charset: string;
  keys: number;
  textKeys: number;
  usesModseq: boolean;
  usesSequences: boolean;
}

/**
 * Reads up to the end of the command: [CHARSET x] keys, or in SORT and THREAD (`mandatory`) the charset's name and keys. Throws ImapSyntaxError, with status NO
 * where the program can be read but not be served (BADCHARSET, limits).
 */
export function readCriteria(cursor: Cursor, charset: 'optional' | 'mandatory', utf8Enabled: boolean): SearchCriteria {
  const reading: Reading = { cursor, charset: 'utf-8', keys: 0, textKeys: 0, usesModseq: false, usesSequences: false };
  if (charset === 'mandatory' || cursor.seesWord('CHARSET ')) {
    if (charset === 'optional') {
      cursor.word();
      cursor.space();
    }
    reading.charset = readCharset(cursor);
    // RFC 6855 section 3: after ENABLE UTF8=ACCEPT no other charset may be given.
    if (utf8Enabled && reading.charset !== 'utf-8' && reading.charset !== 'us-ascii')
      cursor.fail('CHARSET is not allowed with UTF-8 enabled');
    cursor.space();
  }
  const keys: SearchKey[] = [];
  do keys.push(readKey(reading));
  while (cursor.takes(' ') && !cursor.isAtEnd);
  cursor.end();
  return { key: allOf(keys), usesModseq: reading.usesModseq, usesSequences: reading.usesSequences };
}

function readCharset(cursor: Cursor): string {
  const name = cursor.astring().toLowerCase();
  if (name === 'utf-8' || name === 'utf8') return 'utf-8';
  if (name === 'us-ascii' || name === 'ascii') return 'us-ascii';
  if (name.length > 40 || !iconv.encodingExists(name))
    throw new ImapSyntaxError('Unknown charset', 'BADCHARSET (UTF-8 US-ASCII)', 'NO');
  return name;
}

function allOf(keys: SearchKey[]): SearchKey {
  return keys.length === 1 ? keys[0]! : { kind: 'and', keys };
}

const constants: Record<string, SearchKey> = {
  ALL: { kind: 'all' },
  ANSWERED: { kind: 'keyword', keyword: '$answered' },
  DELETED: { kind: 'deleted' },
  DRAFT: { kind: 'keyword', keyword: '$draft' },
  FLAGGED: { kind: 'keyword', keyword: '$flagged' },
  SEEN: { kind: 'keyword', keyword: '$seen' },
  NEW: { kind: 'and', keys: [{ kind: 'recent' }, { kind: 'not', key: { kind: 'keyword', keyword: '$seen' } }] },
  RECENT: { kind: 'recent' },
  OLD: { kind: 'not', key: { kind: 'recent' } },
  SAVEDATESUPPORTED: { kind: 'all' },
};

function readKey(reading: Reading): SearchKey {
  const { cursor } = reading;
  if (++reading.keys > maxKeys) throw new ImapSyntaxError('Too many search keys', 'LIMIT', 'NO');
  if (cursor.sees('(')) return readGroup(reading);
  if (/^[0-9*$]$/.test(cursor.peek())) {
    const set = readSequenceSet(cursor);
    reading.usesSequences ||= set.kind === 'ranges';
    return { kind: 'sequence', set };
  }
  const name = cursor.word();
  const constant = constants[name];
  if (constant) return constant;
  const negated = name.startsWith('UN') ? constants[name.slice(2)] : undefined;
  if (negated && (negated.kind === 'keyword' || negated.kind === 'deleted')) return { kind: 'not', key: negated };
  cursor.space();
  return readKeyWithArgument(reading, name);
}

function readGroup(reading: Reading): SearchKey {
  const { cursor } = reading;
  const keys: SearchKey[] = [];
  cursor.open();
  do keys.push(readKey(reading));
  while (cursor.takes(' '));
  cursor.close();
  return allOf(keys);
}

function readKeyWithArgument(reading: Reading, name: string): SearchKey {
  const { cursor } = reading;
  switch (name) {
    case 'NOT':
      return nested(reading, () => ({ kind: 'not', key: readKey(reading) }));
    case 'OR':
      return nested(reading, () => {
        const left = readKey(reading);
        cursor.space();
        return { kind: 'or', left, right: readKey(reading) };
      });
    case 'KEYWORD':
      return keywordKey(cursor);
    case 'UNKEYWORD':
      return { kind: 'not', key: keywordKey(cursor) };
    case 'UID':
      return { kind: 'uid', set: readSequenceSet(cursor) };
    // RFC 9738 3.2.
    case 'UIDAFTER':
      return uidsBetween(readUid(cursor) + 1, 0xffff_ffff);
    case 'UIDBEFORE':
      return uidsBetween(1, readUid(cursor) - 1);
    case 'LARGER':
      return { kind: 'larger', bytes: cursor.number64() };
    case 'SMALLER':
      return { kind: 'smaller', bytes: cursor.number64() };
    case 'OLDER':
      return { kind: 'within', relation: 'older', seconds: cursor.number64() };
    case 'YOUNGER':
      return { kind: 'within', relation: 'younger', seconds: cursor.number64() };
    case 'FROM':
    case 'TO':
    case 'CC':
    case 'BCC':
    case 'SUBJECT':
      return { kind: 'field', field: name.toLowerCase() as TextField, text: readText(reading) };
    case 'BODY':
    case 'TEXT':
      if (++reading.textKeys > maxTextKeys) throw new ImapSyntaxError('Too many BODY and TEXT keys', 'LIMIT', 'NO');
      return { kind: name === 'BODY' ? 'body' : 'text', text: readText(reading) };
    case 'HEADER': {
      const field = cursor.astring().toLowerCase();
      cursor.space();
      return { kind: 'header', name: field, text: readText(reading) };
    }
    case 'EMAILID':
    case 'THREADID':
      return { kind: name === 'EMAILID' ? 'emailid' : 'threadid', id: cursor.astring() };
    case 'MODSEQ':
      return modseqKey(reading);
    default:
      return dateKey(cursor, name);
  }
}

function readUid(cursor: Cursor): number {
  const uid = cursor.number();
  if (uid === 0) cursor.fail('Expected a UID');
  return uid;
}

function uidsBetween(first: number, last: number): SearchKey {
  return first > last ? { kind: 'none' } : { kind: 'uid', set: { kind: 'ranges', ends: [first, last] } };
}

function nested(reading: Reading, read: () => SearchKey): SearchKey {
  reading.cursor.deeper();
  const key = read();
  reading.cursor.shallower();
  return key;
}

function keywordKey(cursor: Cursor): SearchKey {
  const flag = cursor.flag();
  const keyword = keywordOf(flag);
  if (keyword) return { kind: 'keyword', keyword };
  return flag.toLowerCase() === '\\deleted' ? { kind: 'deleted' } : { kind: 'none' };
}

// RFC 7162 3.1.5: MODSEQ [entry-name entry-type] number. There is one modseq per message, so the entry changes nothing.
function modseqKey(reading: Reading): SearchKey {
  const { cursor } = reading;
  reading.usesModseq = true;
  if (cursor.sees('"')) {
    cursor.quoted();
    cursor.space();
    const type = cursor.word();
    if (type !== 'PRIV' && type !== 'SHARED' && type !== 'ALL') cursor.fail('Bad entry type');
    cursor.space();
  }
  return { kind: 'modseq', atLeast: cursor.number64() };
}

function dateKey(cursor: Cursor, name: string): SearchKey {
  const match = /^(SENT|SAVED)?(BEFORE|ON|SINCE)$/.exec(name);
  if (!match) cursor.fail(`Unknown search key ${name.slice(0, 40)}`);
  const of = match[1] === 'SENT' ? 'sent' : match[1] === 'SAVED' ? 'saved' : 'received';
  return { kind: 'date', of, relation: match[2]!.toLowerCase() as 'before' | 'on' | 'since', day: readDate(cursor) };
}

function readText({ cursor, charset }: Reading): string {
  const latin1 = cursor.astring();
  if (!/[\x80-\xff]/.test(latin1) && !/^(?:iso-2022|utf-?(?:7|16|32)|hz)/.test(charset)) return searchText(latin1);
  const bytes = Buffer.from(latin1, 'latin1');
  return searchText(charset === 'utf-8' || charset === 'us-ascii' ? bytes.toString('utf8') : iconv.decode(bytes, charset));
}

/** The form in which texts are compared; the full-text index keeps the same. */
export const searchText = foldText;
