/**
 * Annotations of mailboxes and of the server as IMAP names them (RFC 5464): `/private/…` for the user alone, `/shared/…` for all who use the mailbox. The
 * server's shared ones are settings, and can't be written.
 */
import { type AnnotationPlace, annotationLimits } from '../../store/mail/contract.js';
import type { SessionContext } from './context.js';
import type { Cursor } from './grammar/cursor.js';
import { formatAstring, formatString } from './grammar/format.js';
import { ImapSyntaxError } from './grammar/limits.js';
import type { MailboxPlace, Right } from './places.js';

export interface MetadataRequest {
  /** Lower case, checked. */
  entries: string[];
  maxSizeBytes?: number;
  depth: 0 | 1 | 'infinity';
}

export const maxEntriesPerCommand = 100;

/**
 * An entry in its one spelling. RFC 5464 section 3.1: case does not matter; nothing empty, no wildcards. `mayBeRoot`: also `/private` and `/shared`, which have no
 * value, but all others beneath them. Throws ImapSyntaxError.
 */
export function readEntryName(cursor: Cursor, mayBeRoot = false): string {
  const name = cursor.astring().toLowerCase();
  const isRoot = name === '/private' || name === '/shared';
  if (!(isRoot ? mayBeRoot : /^\/(?:private|shared)(?:\/[^/*%\x00-\x1f\x7f-\xff]+)+$/.test(name))) cursor.fail('Bad entry name');
  if (name.length > annotationLimits.maxNameBytes) throw new ImapSyntaxError('Entry name too long', 'LIMIT', 'NO');
  return name;
}

function readOptions(cursor: Cursor, request: MetadataRequest): void {
  cursor.list(() => {
    const option = cursor.word();
    cursor.space();
    if (option === 'MAXSIZE') request.maxSizeBytes = cursor.number();
    else if (option === 'DEPTH') request.depth = readDepth(cursor);
    else cursor.fail('Unknown GETMETADATA option');
  });
}

function readDepth(cursor: Cursor): MetadataRequest['depth'] {
  const depth = cursor.word();
  if (depth === '0') return 0;
  if (depth === '1') return 1;
  if (depth === 'INFINITY') return 'infinity';
  return cursor.fail('Unknown depth');
}

/** Options, where they come next: a list that does not begin with an entry. Answers whether there were any. */
export function readMetadataOptions(cursor: Cursor, request: MetadataRequest): boolean {
  if (!cursor.seesWord('(MAXSIZE ') && !cursor.seesWord('(DEPTH ')) return false;
  readOptions(cursor, request);
  return true;
}

export function emptyMetadataRequest(): MetadataRequest {
  return { entries: [], depth: 0 };
}

/** One entry, or a list of them. */
export function readEntries(cursor: Cursor): string[] {
  if (!cursor.sees('(')) return [readEntryName(cursor, true)];
  const entries = cursor.list(() => readEntryName(cursor, true));
  if (entries.length > maxEntriesPerCommand) throw new ImapSyntaxError('Too many entries', 'LIMIT', 'NO');
  return [...new Set(entries)];
}

/** Options and entries as LIST has them (RFC 9590). */
export function readMetadataRequest(cursor: Cursor): MetadataRequest {
  const request = emptyMetadataRequest();
  if (readMetadataOptions(cursor, request)) cursor.space();
  request.entries = readEntries(cursor);
  return request;
}

/** RFC 5464 section 3.3: who may look a mailbox up and do something with it sees its annotations, and may have private ones. */
export function maySeeAnnotations(rights: ReadonlySet<Right>): boolean {
  return rights.has('l') && (['r', 's', 'w', 'i', 'p'] as const).some((right) => rights.has(right));
}

interface NamedValue {
  name: string;
  value: Buffer | undefined;
}

/**
 * The METADATA response about one mailbox, or about the server; no response where there is nothing to tell. `longestBytes`: of the values that were left out for
 * their size; 0 if none was.
 */
export async function metadataOf(
  context: SessionContext,
  place: MailboxPlace | undefined,
  request: MetadataRequest,
): Promise<{ response?: string; longestBytes: number }> {
  const found = new Map<string, Buffer | undefined>();
  for (const entry of request.entries)
    for (const { name, value } of await valuesOf(context, place, entry, request)) found.set(name, value);
  let longestBytes = 0;
  const parts: string[] = [];
  for (const [name, value] of found) {
    if (value && request.maxSizeBytes !== undefined && value.length > request.maxSizeBytes) {
      longestBytes = Math.max(longestBytes, value.length);
    } else parts.push(`${formatAstring(name)} ${formatValue(value)}`);
  }
  if (parts.length === 0) return { longestBytes };
  const mailbox = place ? context.mailboxText(place.path) : '""';
  return { response: `METADATA ${mailbox} (${parts.join(' ')})`, longestBytes };
}

/** Bytes as they came; with NUL only a literal of RFC 3516 holds them. */
function formatValue(value: Buffer | undefined): string {
  if (!value) return 'NIL';
  const raw = value.toString('latin1');
  return value.includes(0) ? `~{${value.length}}\r\n${raw}` : formatString(raw);
}

async function valuesOf(
  context: SessionContext,
  place: MailboxPlace | undefined,
  entry: string,
  { depth }: MetadataRequest,
): Promise<NamedValue[]> {
  const { root, name } = splitEntry(entry);
  if (!place && root === '/shared') return serverValues(context, entry, depth);
  const { annotations } = context.services.mail;
  const where = annotationPlace(context, place, root);
  const [value] = await annotations.values(where, [name]);
  if (depth === 0) return [{ name: entry, value }];
  const beneath = (await annotations.beneath(where, name))
    .filter((one) => depth === 'infinity' || !one.name.includes('/', name.length + 1))
    .map((one) => ({ name: root + one.name, value: one.value }));
  return value ? [{ name: entry, value }, ...beneath] : beneath;
}

export function splitEntry(entry: string): { root: '/private' | '/shared'; name: string } {
  const root = /^\/private(?:\/|$)/.test(entry) ? '/private' : '/shared';
  return { root, name: entry.slice(root.length) };
}

/** Where an entry is kept. */
export function annotationPlace(
  context: SessionContext,
  place: MailboxPlace | undefined,
  root: '/private' | '/shared',
): AnnotationPlace {
  const mailboxId = place?.mailbox.id ?? '';
  if (root === '/private') return { accountId: context.accountId, mailboxId, scope: 'private' };
  return { accountId: place?.accountId ?? context.accountId, mailboxId, scope: 'shared' };
}

function serverValues(context: SessionContext, entry: string, depth: MetadataRequest['depth']): NamedValue[] {
  const { comment, admin } = context.services.serverAnnotations ?? {};
  const all: NamedValue[] = [];
  if (comment) all.push({ name: '/shared/comment', value: Buffer.from(comment) });
  if (admin) all.push({ name: '/shared/admin', value: Buffer.from(admin) });
  const chosen = all.filter(({ name }) => name === entry || (depth !== 0 && name.startsWith(`${entry}/`)));
  return depth === 0 && chosen.length === 0 ? [{ name: entry, value: undefined }] : chosen;
}
