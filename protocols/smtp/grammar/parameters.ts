/**
 * ESMTP parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152, 3030), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY, ORCPT
 * (RFC 3461), AUTH (RFC 4954). Parsed to values, and built again from them.
 */
import { type Reply, reply } from './reply.js';

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

// RFC 3461 4: xtext is printable ASCII without "+" and "=", and "+" with two upper-case hexadecimal digits. Lower case is accepted.
const xtextForm = /^(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*$/;
const xtextUtf8Form = /^(?:[!-*,-<>-~\u0080-\u{10ffff}]|\+[0-9A-Fa-f]{2})*$/u;

/** Decodes xtext (RFC 3461 4) to a string of the octets' UTF-8; undefined when malformed. */
export function decodeXtext(text: string, allowUtf8 = false): string | undefined {
  if (!(allowUtf8 ? xtextUtf8Form : xtextForm).test(text)) return undefined;
  if (!text.includes('+')) return text;
  const bytes: number[] = [];
  const raw = Buffer.from(text, 'utf8');
  for (let i = 0; i < raw.length; i++) {
    if (raw[i] === 0x2b) {
      bytes.push(Number.parseInt(raw.toString('latin1', i + 1, i + 3), 16));
      i += 2;
    } else bytes.push(raw[i]!);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return undefined;
  }
}

/** Encodes printable ASCII as xtext; other characters become the hexadecimal of their UTF-8 octets. */
export function encodeXtext(text: string): string {
  let out = '';
  for (const octet of Buffer.from(text, 'utf8')) {
    const plain = octet > 0x20 && octet < 0x7f && octet !== 0x2b && octet !== 0x3d;
    out += plain ? String.fromCharCode(octet) : `+${octet.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}

/**
 * RFC 6533 3: utf-8-addr-xtext and utf-8-addr-unitext: `\x{HEX}` stands for a character outside printable ASCII (or for `\`, `+`, `=`).
 * Undefined when malformed.
 */
export function decodeUtf8Address(text: string): string | undefined {
  if (!/^(?:[!-*,-<>-[\]-~\u0080-\u{10ffff}]|\\x\{[0-9A-Fa-f]{2,6}\})+$/u.test(text)) return undefined;
  let valid = true;
  const decoded = text.replace(/\\x\{([0-9A-Fa-f]{2,6})\}/g, (_whole, hex: string) => {
    const point = Number.parseInt(hex, 16);
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff) || point < 0x20 || point === 0x7f) {
      valid = false;
      return '';
    }
    return String.fromCodePoint(point);
  });
  return valid ? decoded : undefined;
}

/** The ASCII form of the above. */
export function encodeUtf8Address(address: string): string {
  let out = '';
  for (const character of address) {
    const point = character.codePointAt(0)!;
    const plain = point > 0x20 && point < 0x7f && !'\\+='.includes(character);
    out += plain ? character : `\\x{${point.toString(16).toUpperCase().padStart(2, '0')}}`;
  }
  return out;
}

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

/** What the session announced; a parameter of an extension that it did not is refused with 555. */
export interface AnnouncedExtensions {
  auth: boolean;
  binaryMime: boolean;
}

/** Parses what follows the path of MAIL FROM. */
export function parseMailParameters(text: string, announced: AnnouncedExtensions): ParametersResult<MailParameters> {
  const value: MailParameters = { smtpUtf8: false };
  if (text === '') return { ok: true, value };
  const pairs = splitParameters(text);
  if (typeof pairs === 'string') return syntaxError(pairs);
  for (const [keyword, raw] of pairs) {
    const problem = mailParameter(value, keyword, raw, announced);
    if (problem) return problem;
  }
  return { ok: true, value };
}

function mailParameter(
  value: MailParameters,
  keyword: string,
  raw: string | undefined,
  announced: AnnouncedExtensions,
): { ok: false; reply: Reply } | undefined {
  switch (keyword) {
    case 'SIZE':
      if (raw === undefined || !/^[0-9]{1,20}$/.test(raw)) return syntaxError('SIZE takes a number of octets');
      value.sizeBytes = Number(raw);
      return undefined;
    case 'BODY': {
      const body = raw?.toUpperCase();
      if (body !== '7BIT' && body !== '8BITMIME' && !(body === 'BINARYMIME' && announced.binaryMime)) {
        return syntaxError(`BODY takes 7BIT${announced.binaryMime ? ', 8BITMIME or BINARYMIME' : ' or 8BITMIME'}`);
      }
      value.body = body;
      return undefined;
    }
    case 'SMTPUTF8':
      if (raw !== undefined) return syntaxError('SMTPUTF8 takes no value');
      value.smtpUtf8 = true;
      return undefined;
    case 'RET': {
      const ret = raw?.toUpperCase();
      if (ret !== 'FULL' && ret !== 'HDRS') return syntaxError('RET takes FULL or HDRS');
      value.ret = ret;
      return undefined;
    }
    case 'ENVID': {
      const envelopeId = raw === undefined || raw.length > 300 ? undefined : decodeXtext(raw);
      if (!envelopeId || envelopeId.length > 100 || !/^[ -~]+$/.test(envelopeId))
        return syntaxError('ENVID takes up to 100 characters of xtext');
      value.envelopeId = envelopeId;
      return undefined;
    }
    case 'AUTH': {
      if (!announced.auth) return unknownParameter(keyword);
      const auth = raw === undefined || raw.length > 1500 ? undefined : decodeXtext(raw);
      if (!auth || /[\x00-\x1f\x7f]/.test(auth)) return syntaxError('AUTH takes a mailbox in xtext, or <>');
      value.auth = auth === '<>' ? '' : auth;
      return undefined;
    }
    default:
      return unknownParameter(keyword);
  }
}

/** Parses what follows the path of RCPT TO. `smtpUtf8` as given with MAIL: it allows raw UTF-8 in ORCPT. */
export function parseRecipientParameters(text: string, smtpUtf8: boolean): ParametersResult<RecipientParameters> {
  const value: RecipientParameters = {};
  if (text === '') return { ok: true, value };
  const pairs = splitParameters(text);
  if (typeof pairs === 'string') return syntaxError(pairs);
  for (const [keyword, raw] of pairs) {
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
