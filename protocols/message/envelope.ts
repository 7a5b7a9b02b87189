/**
 * The IMAP envelope (RFC 9051 7.5.2), message identifiers and date of one message, from the header fields that `MessageFields` has
 * gathered while the parser passed over them.
 */

import { type Address, type MailboxAddress, parseAddressList } from './addresses.js';
import { withoutBlanks } from './blanks.js';
import { parseDate } from './dates.js';
import { unfold } from './headers.js';
import type { MessageLimits } from './limits.js';
import type { Envelope, EnvelopeAddress, MessageIds } from './types.js';

const textFields = new Set(['date', 'subject', 'in-reply-to', 'message-id', 'references']);
/** RFC 5322 4.5.3 lets destination fields occur several times; the values count as one list. */
const repeatableFields = new Set(['to', 'cc', 'bcc']);
const addressFields = new Set(['from', 'sender', 'reply-to', 'to', 'cc', 'bcc']);

/** The first occurrence of each envelope field (destination fields: all, joined), raw and unfolded. */
export class MessageFields {
  private readonly values = new Map<string, string>();
  private readonly cutFields = new Set<string>();

  constructor(private readonly limits: MessageLimits) {}

  /** Takes a field if the envelope needs it. `read` gives the raw value's first `maxBytes`. */
  offer(name: string, read: (maxBytes: number) => string): void {
    const isAddress = addressFields.has(name);
    if (!isAddress && !textFields.has(name)) return;
    const known = this.values.get(name);
    if (known !== undefined && !repeatableFields.has(name)) return;
    const maxBytes = isAddress || name === 'references' ? this.limits.maxAddressFieldBytes : this.limits.maxTextFieldBytes;
    if (known !== undefined && known.length >= maxBytes) return;
    const raw = read(maxBytes);
    if (raw.length >= maxBytes) this.cutFields.add(name);
    const value = unfold(raw);
    this.values.set(name, known ? `${known}, ${value}` : value);
  }

  /** True when a size limit cut the field. */
  isCut(name: string): boolean {
    return this.cutFields.has(name);
  }

  /** A field's raw value; null when absent. */
  get(name: string): string | null {
    return this.values.get(name) ?? null;
  }
}

/** Builds the envelope; an absent or empty Sender and Reply-To are From (RFC 9051 7.5.2). */
export function buildEnvelope(fields: MessageFields, limits: MessageLimits): Envelope {
  const list = (name: string) => envelopeAddresses(fields.get(name), fields.isCut(name), limits);
  const from = list('from');
  const sender = list('sender');
  const replyTo = list('reply-to');
  return {
    date: fields.get('date'),
    subject: fields.get('subject'),
    from,
    sender: sender.length > 0 ? sender : from,
    replyTo: replyTo.length > 0 ? replyTo : from,
    to: list('to'),
    cc: list('cc'),
    bcc: list('bcc'),
    inReplyTo: fields.get('in-reply-to') || null,
    messageId: fields.get('message-id') || null,
  };
}

/** An envelope of a message that has no readable header. */
export function emptyEnvelope(): Envelope {
  return {
    date: null,
    subject: null,
    from: [],
    sender: [],
    replyTo: [],
    to: [],
    cc: [],
    bcc: [],
    inReplyTo: null,
    messageId: null,
  };
}

function envelopeAddresses(value: string | null, isCut: boolean, limits: MessageLimits): EnvelopeAddress[] {
  if (!value) return [];
  let addresses = parseAddressList(value, limits.maxAddresses);
  // The last address of a field that was cut may be half of one.
  if (isCut) addresses = withoutLast(addresses);
  return toEnvelopeAddresses(addresses).slice(0, limits.maxAddresses);
}

function withoutLast(addresses: Address[]): Address[] {
  const last = addresses.at(-1);
  if (last?.kind !== 'group') return addresses.slice(0, -1);
  return [...addresses.slice(0, -1), { ...last, members: last.members.slice(0, -1) }];
}

/** Flattens groups into the markers of RFC 9051: `(NIL NIL name NIL)` … `(NIL NIL NIL NIL)`. */
export function toEnvelopeAddresses(addresses: readonly Address[]): EnvelopeAddress[] {
  const out: EnvelopeAddress[] = [];
  const push = (one: MailboxAddress) => out.push({ name: one.name, route: one.route, mailbox: one.local, host: one.domain });
  for (const address of addresses) {
    if (address.kind === 'mailbox') {
      push(address);
      continue;
    }
    out.push({ name: null, route: null, mailbox: address.name, host: null });
    for (const member of address.members) push(member);
    out.push({ name: null, route: null, mailbox: null, host: null });
  }
  return out;
}

/** RFC 5322 2.1.1: no line, and so no identifier, is longer. */
const maxMessageIdChars = 998;

/**
 * The identifiers `<…>` of a raw value, without brackets and inner white space, in order. What is repeated at once counts once; one that comes again later stays,
 * because the last one is the parent (RFC 5256, THREAD=REFERENCES).
 */
export function parseMessageIds(value: string | null, maxIds: number): string[] {
  if (!value) return [];
  const all: string[] = [];
  for (const match of value.matchAll(/<([^<>]*)>/g)) {
    const id = withoutBlanks(match[1]!);
    if (id !== '' && id.length <= maxMessageIdChars && id !== all.at(-1)) all.push(id);
  }
  // A thread is known by its root and by its latest members.
  return all.length <= maxIds ? all : [all[0]!, ...all.slice(all.length - (maxIds - 1))];
}

export function buildMessageIds(fields: MessageFields, limits: MessageLimits): MessageIds {
  const ownValue = fields.get('message-id');
  const bare = ownValue?.replace(/[<>\t-\r ]+/g, '');
  const own = parseMessageIds(ownValue, 1)[0] ?? (bare && bare.length <= maxMessageIdChars ? bare : undefined);
  const ids: MessageIds = {
    inReplyTo: parseMessageIds(fields.get('in-reply-to'), limits.maxMessageIds),
    references: parseMessageIds(fields.get('references'), limits.maxMessageIds),
  };
  if (own !== undefined) ids.own = own;
  return ids;
}

/** The Date field in milliseconds since the epoch; undefined when absent or unreadable. */
export function sentAtOf(fields: MessageFields): number | undefined {
  const date = fields.get('date');
  return date === null ? undefined : parseDate(date)?.epochMs;
}
