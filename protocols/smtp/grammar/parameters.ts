/**
 * ESMTP parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152, 3030), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY, ORCPT
 * (RFC 3461), AUTH (RFC 4954), REQUIRETLS (RFC 8689), HOLDFOR, HOLDUNTIL (RFC 4865), BY (RFC 2852), MT-PRIORITY (RFC 6710).
 * Parsed to values, and built again from them.
 */
import { type EhloKeyword, type ExtensionSet, hasExtension } from './extensions.js';
import { type Reply, reply } from './reply.js';
import { decodeUtf8Address, decodeXtext, encodeUtf8Address, encodeXtext } from './xtext.js';

export { decodeUtf8Address, decodeXtext, encodeUtf8Address, encodeXtext } from './xtext.js';

export type BodyType = '7BIT' | '8BITMIME' | 'BINARYMIME';

/** Parameters of MAIL FROM. */
export interface MailParameters {
  /** SIZE=: what the client says the message has, octets. */
  sizeBytes?: number;
  /** BODY=; absent when not given (meaning 7BIT). */
  body?: BodyType;
  smtpUtf8: boolean;
  /** RET=: what of the message a failure report returns. */
  ret?: 'FULL' | 'HDRS';
  /** ENVID=, decoded from xtext; printable ASCII, at most 100 characters. */
  envelopeId?: string;
  /** AUTH=, decoded from xtext: the mailbox that submitted the message; empty for `<>`. A claim, not a proof. */
  auth?: string;
  /** REQUIRETLS (RFC 8689): no hop may pass the message on without it. */
  requireTls?: boolean;
  /** HOLDFOR= (seconds from now) or HOLDUNTIL= (Unix milliseconds) of RFC 4865. */
  hold?: { forSeconds: number } | { untilMs: number };
  /** BY= of RFC 2852: seconds from now (may be negative with `notify`), what happens then, and whether a trace is asked for. */
  deliverBy?: { seconds: number; mode: 'return' | 'notify'; isTraced: boolean };
  /** MT-PRIORITY= (RFC 6710), -9 to 9. */
  mtPriority?: number;
}

export type NotifyCondition = 'NEVER' | 'SUCCESS' | 'FAILURE' | 'DELAY';

/** Parameters of RCPT TO. */
export interface RecipientParameters {
  /** NOTIFY=; absent when not given. `NEVER` stands alone. */
  notify?: NotifyCondition[];
  /** ORCPT=: address type (lower case, such as `rfc822` or `utf-8`) and the decoded address. */
  originalRecipient?: { type: string; address: string };
}

export type ParametersResult<T> = { ok: true; value: T } | { ok: false; reply: Reply };

const syntaxError = (text: string): { ok: false; reply: Reply } => ({ ok: false, reply: reply(501, '5.5.4', text) });
const unknownParameter = (keyword: string): { ok: false; reply: Reply } => ({
  ok: false,
  reply: reply(555, '5.5.4', `Parameter ${keyword} is not supported here`),
});

const maxParameters = 32;
const keywordForm = /^[A-Za-z0-9][A-Za-z0-9-]*$/;

/** `KEY=value KEY …` as pairs, or a sentence saying what is wrong. RFC 5321 4.1.2: values are printable, without `=`. */
function splitParameters(text: string): [keyword: string, value: string | undefined][] | string {
  const pairs: [string, string | undefined][] = [];
  const seen = new Set<string>();
  for (const item of text.split(' ')) {
    if (item === '') continue;
    const equals = item.indexOf('=');
    const keyword = (equals < 0 ? item : item.slice(0, equals)).toUpperCase();
    if (!keywordForm.test(keyword)) return 'Malformed parameter';
    if (seen.has(keyword)) return `Parameter ${keyword} is given twice`;
    seen.add(keyword);
    if (pairs.push([keyword, equals < 0 ? undefined : item.slice(equals + 1)]) > maxParameters) return 'Too many parameters';
  }
  return pairs;
}

/** What the parameters of MAIL are held against. */
export interface MailParameterRules {
  /** What the session offers: a parameter of any other extension is refused with 555 (RFC 5321 4.1.1.11). */
  offered: ExtensionSet;
  /** Wall clock, Unix milliseconds. */
  nowMs: number;
  /** HOLDFOR= and HOLDUNTIL= may not reach further. */
  maxHoldSeconds: number;
  /** BY=…;R may not be shorter. */
  minDeliverBySeconds: number;
}

type Problem = { ok: false; reply: Reply };
type MailParameter = (value: MailParameters, raw: string | undefined, rules: MailParameterRules) => Problem | undefined;

/** Parses what follows the path of MAIL FROM. */
export function parseMailParameters(text: string, rules: MailParameterRules): ParametersResult<MailParameters> {
  const value: MailParameters = { smtpUtf8: false };
  if (text === '') return { ok: true, value };
  const pairs = splitParameters(text);
  if (typeof pairs === 'string') return syntaxError(pairs);
  for (const [keyword, raw] of pairs) {
    const parameter = mailParameters.get(keyword);
    if (!parameter?.of.some((extension) => hasExtension(rules.offered, extension))) return unknownParameter(keyword);
    const problem = parameter.parse(value, raw, rules);
    if (problem) return problem;
  }
  return { ok: true, value };
}

const size: MailParameter = (value, raw) => {
  if (raw === undefined || !/^[0-9]{1,20}$/.test(raw)) return syntaxError('SIZE takes a number of octets');
  value.sizeBytes = Number(raw);
  return undefined;
};

const bodyExtensions = ['8BITMIME', 'BINARYMIME'] as const;

const body: MailParameter = (value, raw, { offered }) => {
  const types: BodyType[] = ['7BIT', ...bodyExtensions.filter((extension) => hasExtension(offered, extension))];
  const given = raw?.toUpperCase();
  const type = types.find((known) => known === given);
  if (!type) return syntaxError(`BODY takes ${types.join(', ')}`);
  value.body = type;
  return undefined;
};

const smtpUtf8: MailParameter = (value, raw) => {
  if (raw !== undefined) return syntaxError('SMTPUTF8 takes no value');
  value.smtpUtf8 = true;
  return undefined;
};

const ret: MailParameter = (value, raw) => {
  const what = raw?.toUpperCase();
  if (what !== 'FULL' && what !== 'HDRS') return syntaxError('RET takes FULL or HDRS');
  value.ret = what;
  return undefined;
};

const envid: MailParameter = (value, raw) => {
  const envelopeId = raw === undefined || raw.length > 300 ? undefined : decodeXtext(raw);
  if (!envelopeId || envelopeId.length > 100 || !/^[ -~]+$/.test(envelopeId))
    return syntaxError('ENVID takes up to 100 characters of xtext');
  value.envelopeId = envelopeId;
  return undefined;
};

const auth: MailParameter = (value, raw) => {
  const mailbox = raw === undefined || raw.length > 1500 ? undefined : decodeXtext(raw);
  if (!mailbox || /[\x00-\x1f\x7f]/.test(mailbox)) return syntaxError('AUTH takes a mailbox in xtext, or <>');
  value.auth = mailbox === '<>' ? '' : mailbox;
  return undefined;
};

const requireTls: MailParameter = (value, raw) => {
  if (raw !== undefined) return syntaxError('REQUIRETLS takes no value');
  value.requireTls = true;
  return undefined;
};

const holdFor: MailParameter = (value, raw, { maxHoldSeconds }) => {
  if (value.hold) return syntaxError('HOLDFOR and HOLDUNTIL exclude each other');
  // RFC 4865 4: at most nine digits, the first of them no zero.
  if (raw === undefined || !/^[1-9][0-9]{0,8}$/.test(raw)) return syntaxError('HOLDFOR takes a number of seconds');
  const forSeconds = Number(raw);
  if (forSeconds > maxHoldSeconds) return syntaxError(`HOLDFOR is at most ${maxHoldSeconds} seconds here`);
  value.hold = { forSeconds };
  return undefined;
};

const holdUntil: MailParameter = (value, raw, { nowMs, maxHoldSeconds }) => {
  if (value.hold) return syntaxError('HOLDFOR and HOLDUNTIL exclude each other');
  const untilMs = parseDateTime(raw ?? '');
  if (untilMs === undefined) return syntaxError('HOLDUNTIL takes a date and time of RFC 3339');
  if (untilMs <= nowMs) return syntaxError('HOLDUNTIL is over already');
  if (untilMs > nowMs + maxHoldSeconds * 1000) return syntaxError(`HOLDUNTIL is at most ${maxHoldSeconds} seconds ahead here`);
  value.hold = { untilMs };
  return undefined;
};

const by: MailParameter = (value, raw, { minDeliverBySeconds }) => {
  const match = /^([+-]?[0-9]{1,9});([NR])(T?)$/i.exec(raw ?? '');
  if (!match) return syntaxError('BY takes seconds, a semicolon, N or R, and perhaps T');
  const seconds = Number(match[1]);
  const mode = match[2]!.toUpperCase() === 'R' ? 'return' : 'notify';
  // RFC 2852 4: what must come back in no time can't be accepted at all.
  if (mode === 'return' && seconds <= 0) return syntaxError('BY with R takes a time above 0');
  if (mode === 'return' && seconds < minDeliverBySeconds) {
    return { ok: false, reply: reply(550, '5.4.7', `BY with R is at least ${minDeliverBySeconds} seconds here`) };
  }
  // Not -0: it would be told on as "0", but compares oddly.
  value.deliverBy = { seconds: seconds === 0 ? 0 : seconds, mode, isTraced: match[3] !== '' };
  return undefined;
};

const mtPriority: MailParameter = (value, raw) => {
  if (raw === undefined || !/^(?:0|-?[1-9])$/.test(raw)) {
    return { ok: false, reply: reply(501, '5.5.2', 'MT-PRIORITY takes a number from -9 to 9') };
  }
  value.mtPriority = Number(raw);
  return undefined;
};

/** Keyword, the extensions any of which brings it, and what reads it. */
const mailParameters = new Map<string, { of: EhloKeyword[]; parse: MailParameter }>([
  ['SIZE', { of: ['SIZE'], parse: size }],
  ['BODY', { of: [...bodyExtensions], parse: body }],
  ['SMTPUTF8', { of: ['SMTPUTF8'], parse: smtpUtf8 }],
  ['RET', { of: ['DSN'], parse: ret }],
  ['ENVID', { of: ['DSN'], parse: envid }],
  ['AUTH', { of: ['AUTH'], parse: auth }],
  ['REQUIRETLS', { of: ['REQUIRETLS'], parse: requireTls }],
  ['HOLDFOR', { of: ['FUTURERELEASE'], parse: holdFor }],
  ['HOLDUNTIL', { of: ['FUTURERELEASE'], parse: holdUntil }],
  ['BY', { of: ['DELIVERBY'], parse: by }],
  ['MT-PRIORITY', { of: ['MT-PRIORITY'], parse: mtPriority }],
]);

const dateTimeForm = /^([0-9]{4}-[0-9]{2}-[0-9]{2})T((?!24)[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$/i;

/** A date-time of RFC 3339 5.6 as Unix milliseconds; undefined when malformed or not in the calendar. */
export function parseDateTime(text: string): number | undefined {
  const match = dateTimeForm.exec(text);
  if (!match) return undefined;
  const [, date, time, fraction = '', zone] = match;
  // A day that the month does not have would be taken as one of the next.
  const midnightMs = Date.parse(`${date}T00:00:00Z`);
  if (Number.isNaN(midnightMs) || !new Date(midnightMs).toISOString().startsWith(date!)) return undefined;
  // RFC 3339 5.7: 60 is a leap second.
  const isLeap = time!.endsWith(':60');
  const ms = Date.parse(`${date}T${isLeap ? time!.replace(/60$/, '59') : time}${fraction.slice(0, 4)}${zone!.toUpperCase()}`);
  return Number.isNaN(ms) ? undefined : isLeap ? ms + 1000 : ms;
}

/** Unix milliseconds as RFC 3339 has them, in UTC, without fractions. */
export function formatDateTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/**
 * ` SIZE=… BODY=… …`, each parameter with its leading space, of those extensions that the peer offers (`capabilities` of its EHLO
 * answer, keywords in upper case). What must not be lost on the way (SMTPUTF8, BODY=BINARYMIME, REQUIRETLS, BY with R) is the caller's
 * to check before: here it is left out.
 */
export function formatMailParameters(parameters: MailParameters, capabilities: ReadonlyMap<string, string>): string {
  const { sizeBytes, body: type, hold, deliverBy } = parameters;
  const dsn = capabilities.has('DSN');
  let out = '';
  if (sizeBytes !== undefined && capabilities.has('SIZE')) out += ` SIZE=${sizeBytes}`;
  if (type && capabilities.has(type === 'BINARYMIME' ? type : '8BITMIME')) out += ` BODY=${type}`;
  if (parameters.smtpUtf8 && capabilities.has('SMTPUTF8')) out += ' SMTPUTF8';
  if (parameters.ret && dsn) out += ` RET=${parameters.ret}`;
  if (parameters.envelopeId && dsn) out += ` ENVID=${encodeXtext(parameters.envelopeId)}`;
  if (parameters.auth !== undefined && capabilities.has('AUTH')) out += ` AUTH=${encodeXtext(parameters.auth || '<>')}`;
  if (parameters.requireTls && capabilities.has('REQUIRETLS')) out += ' REQUIRETLS';
  if (hold && capabilities.has('FUTURERELEASE')) {
    out += 'forSeconds' in hold ? ` HOLDFOR=${hold.forSeconds}` : ` HOLDUNTIL=${formatDateTime(hold.untilMs)}`;
  }
  if (deliverBy && capabilities.has('DELIVERBY')) {
    const seconds = Math.max(-999_999_999, Math.min(999_999_999, Math.trunc(deliverBy.seconds)));
    out += ` BY=${seconds};${deliverBy.mode === 'return' ? 'R' : 'N'}${deliverBy.isTraced ? 'T' : ''}`;
  }
  if (parameters.mtPriority !== undefined && capabilities.has('MT-PRIORITY')) out += ` MT-PRIORITY=${parameters.mtPriority}`;
  return out;
}

/** Parses what follows the path of RCPT TO. `smtpUtf8` as given with MAIL: it allows raw UTF-8 in ORCPT. Both parameters are of DSN. */
export function parseRecipientParameters(
  text: string,
  smtpUtf8: boolean,
  offersDsn = true,
): ParametersResult<RecipientParameters> {
  const value: RecipientParameters = {};
  if (text === '') return { ok: true, value };
  const pairs = splitParameters(text);
  if (typeof pairs === 'string') return syntaxError(pairs);
  for (const [keyword, raw] of pairs) {
    if (!offersDsn) return unknownParameter(keyword);
    if (keyword === 'NOTIFY') {
      const notify = parseNotify(raw);
      if (!notify) return syntaxError('NOTIFY takes NEVER, or a list of SUCCESS, FAILURE and DELAY');
      value.notify = notify;
    } else if (keyword === 'ORCPT') {
      const original = parseOriginalRecipient(raw, smtpUtf8);
      if (!original) return syntaxError('ORCPT takes an address type, a semicolon and an address in xtext');
      value.originalRecipient = original;
    } else return unknownParameter(keyword);
  }
  return { ok: true, value };
}

function parseNotify(raw: string | undefined): NotifyCondition[] | undefined {
  const items = raw?.toUpperCase().split(',');
  if (!items || items.length > 3 || new Set(items).size !== items.length) return undefined;
  if (items.length === 1 && items[0] === 'NEVER') return ['NEVER'];
  return items.every((item) => item === 'SUCCESS' || item === 'FAILURE' || item === 'DELAY')
    ? (items as NotifyCondition[])
    : undefined;
}

function parseOriginalRecipient(raw: string | undefined, smtpUtf8: boolean): { type: string; address: string } | undefined {
  const semicolon = raw?.indexOf(';') ?? -1;
  // RFC 3461 4.2: at most 500 octets in all.
  if (raw === undefined || semicolon < 1 || Buffer.byteLength(raw) > 500) return undefined;
  const type = raw.slice(0, semicolon).toLowerCase();
  if (!/^[a-z0-9-]+$/.test(type)) return undefined;
  const encoded = raw.slice(semicolon + 1);
  let address: string | undefined;
  if (type === 'utf-8') {
    // RFC 6533 3: the same type comes as utf-8-addr-xtext, as unitext, or wrapped in plain xtext.
    const outer = encoded.includes('+') ? decodeXtext(encoded, smtpUtf8) : encoded;
    if (outer === undefined || (!smtpUtf8 && /[^\x00-\x7f]/.test(encoded))) return undefined;
    address = decodeUtf8Address(outer);
  } else address = decodeXtext(encoded);
  return address && !/[\x00-\x1f\x7f]/.test(address) ? { type, address } : undefined;
}

/** ` NOTIFY=… ORCPT=…` for a peer that offers DSN; each parameter with its leading space. */
export function formatRecipientParameters(parameters: RecipientParameters): string {
  let out = '';
  if (parameters.notify && parameters.notify.length > 0) out += ` NOTIFY=${parameters.notify.join(',')}`;
  const original = parameters.originalRecipient;
  if (original) {
    const encoded = original.type === 'utf-8' ? encodeUtf8Address(original.address) : encodeXtext(original.address);
    out += ` ORCPT=${original.type};${encoded}`;
  }
  return out;
}
