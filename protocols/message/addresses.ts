/**
 * Address lists of RFC 5322 3.4 with the obsolete syntax of 4.4 (routes, empty elements, comments anywhere, spaces around dots) and
 * RFC 6532's UTF-8. Works the same on raw header strings and on Unicode text. One pass, no recursion, never throws.
 */

import { trimBlanks, withoutBlanks } from './blanks.js';

/** `name <local@domain>`; strings as in the input, quoting and comments removed, RFC 2047 words untouched. */
export interface MailboxAddress {
  kind: 'mailbox';
  name: string | null;
  /** `@a,@b` of an obsolete source route. */
  route: string | null;
  local: string;
  /** `''` when the address has none. */
  domain: string;
}

/** `name: members;` */
export interface GroupAddress {
  kind: 'group';
  name: string;
  members: MailboxAddress[];
}

export type Address = MailboxAddress | GroupAddress;

/** Parses an unfolded address list; at most `maxAddresses` mailboxes and groups together. */
export function parseAddressList(text: string, maxAddresses = Number.POSITIVE_INFINITY): Address[] {
  return new AddressScanner(text, maxAddresses).list();
}

/** The mailboxes of a list with groups dissolved. */
export function mailboxesOf(addresses: readonly Address[]): MailboxAddress[] {
  return addresses.flatMap((address) => (address.kind === 'group' ? address.members : [address]));
}

const maxLocalPartBytes = 64;
const maxDomainBytes = 255;

/**
 * Exactly one mailbox (`local@domain`, or with a name) with a well-formed domain, a local part within RFC 5321 4.5.3.1.1, and nothing besides; undefined
 * otherwise. `text` is Unicode.
 */
export function parseMailboxAddress(text: string): MailboxAddress | undefined {
  const list = parseAddressList(text, 2);
  const only = list[0];
  if (list.length !== 1 || only?.kind !== 'mailbox' || only.route !== null) return undefined;
  if (only.local === '' || Buffer.byteLength(only.local) > maxLocalPartBytes || /[\x00-\x1f\x7f]/.test(only.local))
    return undefined;
  // The scanner forgives; a dot at either end or doubled is only allowed inside quotes.
  if (/^\.|\.\.|\.$/.test(only.local) && !text.includes('"')) return undefined;
  return isDomain(only.domain) ? only : undefined;
}

function isDomain(domain: string): boolean {
  if (domain === '' || Buffer.byteLength(domain) > maxDomainBytes) return false;
  if (domain.startsWith('[')) return /^\[[^[\]\\\s]+\]$/.test(domain);
  return domain
    .split('.')
    .every(
      (label) => label.length > 0 && /^[^\x00-\x2c\x2e\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]+$/.test(label) && !/^-|-$/.test(label),
    );
}

/** `local@domain` with the local part quoted where RFC 5322 3.4.1 needs it. */
export function formatAddressSpec(address: Pick<MailboxAddress, 'local' | 'domain'>): string {
  const local = /^[^\x00-\x20"(),:;<>@[\\\]\x7f.]+(?:\.[^\x00-\x20"(),:;<>@[\\\]\x7f.]+)*$/.test(address.local)
    ? address.local
    : `"${address.local.replace(/["\\]/g, '\\$&')}"`;
  return address.domain === '' ? local : `${local}@${address.domain}`;
}

const code = { space: 0x20, quote: 0x22, open: 0x28, close: 0x29, comma: 0x2c, dot: 0x2e, colon: 0x3a, semicolon: 0x3b } as const;
const lessThan = 0x3c;
const greaterThan = 0x3e;
const at = 0x40;
const bracket = 0x5b;
const backslash = 0x5c;

/** True for characters that end an atom. */
function isSpecial(c: number): boolean {
  if (c <= code.space) return true;
  switch (c) {
    case code.quote:
    case code.open:
    case code.close:
    case code.comma:
    case code.dot:
    case code.colon:
    case code.semicolon:
    case lessThan:
    case greaterThan:
    case at:
    case bracket:
    case backslash:
    case 0x5d:
    case 0x7f:
      return true;
    default:
      return false;
  }
}

/** A word or dot of a phrase or local part; `spaced` when white space or a comment stood in front of it. */
interface Word {
  text: string;
  spaced: boolean;
}

class AddressScanner {
  private pos = 0;
  private comment: string | null = null;
  private count = 0;

  constructor(
    private readonly text: string,
    private readonly max: number,
  ) {}

  list(): Address[] {
    const out: Address[] = [];
    let group: GroupAddress | undefined;
    while (this.pos < this.text.length && this.count < this.max) {
      this.skipSpace();
      const c = this.text.charCodeAt(this.pos);
      if (c === code.comma || c === code.semicolon) {
        if (c === code.semicolon) group = undefined;
        this.pos++;
        this.comment = null;
        continue;
      }
      if (this.pos >= this.text.length) break;
      const one = this.address(group === undefined);
      if (one === undefined) continue;
      this.count++;
      if (one.kind === 'group') out.push((group = one));
      else if (group) group.members.push(one);
      else out.push(one);
    }
    return out;
  }

  /** One mailbox, or the opening of a group; undefined for text that names nobody. The scanner always moves on. */
  private address(groupAllowed: boolean): Address | undefined {
    this.comment = null;
    const words: Word[] = [];
    for (;;) {
      const spaced = this.skipSpace();
      const c = this.pos < this.text.length ? this.text.charCodeAt(this.pos) : code.comma;
      if (c === code.comma || c === code.semicolon) return this.bare(words);
      if (c === lessThan) return this.angle(phraseOf(words));
      if (c === at) {
        this.pos++;
        return this.mailbox(null, null, localOf(words), this.domain());
      }
      if (c === code.colon) {
        this.pos++;
        if (groupAllowed) return { kind: 'group', name: phraseOf(words), members: [] };
        continue;
      }
      words.push({ text: this.word(c), spaced });
    }
  }

  /** Words without an address: a local user, or a name that somebody wrote alone. */
  private bare(words: Word[]): MailboxAddress | undefined {
    if (words.length === 0) return undefined;
    const oneWord = words.every((word, index) => index === 0 || !word.spaced);
    return oneWord ? this.mailbox(null, null, localOf(words), '') : this.mailbox(phraseOf(words), null, '', '');
  }

  private angle(name: string): MailboxAddress | undefined {
    this.pos++;
    let route: string | null = null;
    this.skipSpace();
    if (this.text.charCodeAt(this.pos) === at) route = this.route();
    const words: Word[] = [];
    let domain = '';
    for (;;) {
      const spaced = this.skipSpace();
      if (this.pos >= this.text.length) break;
      const c = this.text.charCodeAt(this.pos);
      if (c === greaterThan) {
        this.pos++;
        break;
      }
      if (c === at) {
        this.pos++;
        domain = this.domain();
      } else if (c === code.comma || c === code.semicolon) {
        break;
      } else {
        const word = this.word(c);
        if (domain === '') words.push({ text: word, spaced });
      }
    }
    this.skipSpace();
    // Junk between '>' and the next separator belongs to nobody.
    while (this.pos < this.text.length && !this.atSeparator()) {
      this.word(this.text.charCodeAt(this.pos));
      this.skipSpace();
    }
    const local = localOf(words);
    if (local === '' && domain === '' && name === '') return undefined;
    return this.mailbox(name === '' ? null : name, route, local, domain);
  }

  private atSeparator(): boolean {
    const c = this.text.charCodeAt(this.pos);
    return c === code.comma || c === code.semicolon || c === lessThan;
  }

  /** `@a,@b:`; without its colon it was no route and is taken as one all the same. */
  private route(): string {
    const start = this.pos;
    while (this.pos < this.text.length) {
      const c = this.text.charCodeAt(this.pos);
      if (c === code.colon || c === greaterThan || c === code.semicolon) break;
      this.pos++;
    }
    const route = withoutBlanks(this.text.slice(start, this.pos));
    if (this.text.charCodeAt(this.pos) === code.colon) this.pos++;
    return route;
  }

  private mailbox(name: string | null, route: string | null, local: string, domain: string): MailboxAddress {
    if (name === null) {
      // RFC 5322 does not say so, but "user@host (Full Name)" is how names were written before display names.
      this.skipSpace();
      name = this.comment;
    }
    return { kind: 'mailbox', name, route, local, domain };
  }

  private domain(): string {
    this.skipSpace();
    let out = '';
    for (;;) {
      const c = this.text.charCodeAt(this.pos);
      if (c === bracket && out === '') out = this.literal();
      else if (c === code.dot) {
        out += '.';
        this.pos++;
      } else if (this.pos < this.text.length && !isSpecial(c)) {
        // Two atoms without a dot between them: the second is not part of the domain.
        if (out !== '' && !out.endsWith('.')) break;
        out += this.atom();
      } else break;
      this.skipSpace();
    }
    return out;
  }

  private literal(): string {
    const end = this.text.indexOf(']', this.pos);
    const stop = end < 0 ? this.text.length : end + 1;
    const out = withoutBlanks(this.text.slice(this.pos, stop));
    this.pos = stop;
    return out;
  }

  /** A quoted string without its quotes, an atom, or a single special character. */
  private word(c: number): string {
    if (c === code.quote) return this.quoted();
    if (!isSpecial(c)) return this.atom();
    return this.text[this.pos++]!;
  }

  private atom(): string {
    const start = this.pos;
    while (this.pos < this.text.length && !isSpecial(this.text.charCodeAt(this.pos))) this.pos++;
    return this.text.slice(start, this.pos);
  }

  private quoted(): string {
    let out = '';
    let from = ++this.pos;
    while (this.pos < this.text.length) {
      const c = this.text.charCodeAt(this.pos);
      if (c === code.quote) break;
      if (c === backslash) {
        out += this.text.slice(from, this.pos);
        from = ++this.pos;
      }
      this.pos++;
    }
    out += this.text.slice(from, this.pos);
    this.pos++;
    return out;
  }

  /** Passes white space and comments, keeping the last comment's text; true when there was any. */
  private skipSpace(): boolean {
    const start = this.pos;
    while (this.pos < this.text.length) {
      const c = this.text.charCodeAt(this.pos);
      if (c === code.open) this.readComment();
      else if (c <= code.space) this.pos++;
      else break;
    }
    return this.pos > start;
  }

  private readComment(): void {
    const start = ++this.pos;
    let depth = 1;
    while (this.pos < this.text.length) {
      const c = this.text.charCodeAt(this.pos);
      if (c === backslash) this.pos++;
      else if (c === code.open) depth++;
      else if (c === code.close && --depth === 0) break;
      this.pos++;
    }
    const text = trimBlanks(this.text.slice(start, this.pos).replace(/\\(.)/g, '$1'));
    if (text !== '') this.comment = text;
    this.pos++;
  }
}

/** Words of a display name with one space where there was any, dots attached (`John Q. Public`). */
function phraseOf(words: readonly Word[]): string {
  let out = '';
  for (const word of words) out += word.spaced && out !== '' ? ` ${word.text}` : word.text;
  return trimBlanks(out);
}

/** RFC 5322 4.4: white space around the dots of an obsolete local part is dropped. */
function localOf(words: readonly Word[]): string {
  let out = '';
  for (const word of words) out += word.text;
  return out;
}
