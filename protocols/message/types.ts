/**
 * What a parsed message looks like: plain object trees of strings, numbers and arrays, so that they can be stored beside the
 * message and sent between nodes. Offsets count bytes from the start of the message; no body byte is ever copied into them.
 *
 * Strings called *raw* hold the header's own bytes, one per character (latin1), unfolded and without CR, LF and NUL, so that IMAP can
 * emit exactly what was sent. All other strings are ordinary Unicode.
 */

/**
 * One entry of an IMAP ENVELOPE address list; all strings raw. RFC 9051 7.5.2: `host === null` marks a group; with a `mailbox`
 * (the group's name) it opens the group, without one it closes it. An address that lacks its domain has `host === ''`.
 */
export interface EnvelopeAddress {
  /** Display name after removal of RFC 5322 quoting, RFC 2047 words untouched; else the text of a trailing comment; else null. */
  name: string | null;
  /** Source route of RFC 822 (`@a,@b`), the "adl" of IMAP. */
  route: string | null;
  /** Local part after removal of quoting, or the group's name. */
  mailbox: string | null;
  host: string | null;
}

/** RFC 9051 7.5.2. All strings raw; an empty list is what IMAP calls NIL. `sender` and `replyTo` default to `from` already. */
export interface Envelope {
  date: string | null;
  subject: string | null;
  from: EnvelopeAddress[];
  sender: EnvelopeAddress[];
  replyTo: EnvelopeAddress[];
  to: EnvelopeAddress[];
  cc: EnvelopeAddress[];
  bcc: EnvelopeAddress[];
  inReplyTo: string | null;
  messageId: string | null;
}

/** A MIME entity: the message itself, a body part of a multipart, or the root of an embedded message. */
export interface Part {
  /** Lower case, e.g. `text`. Without a (readable) Content-Type the default of RFC 2045 5.2 or, in a digest, RFC 2046 5.1.5. */
  type: string;
  /** Lower case, e.g. `plain`. */
  subtype: string;
  /** Content-Type parameters by lower-case name, RFC 2231 decoded, in the header's order. RFC 2047 words inside are left as sent. */
  params: Record<string, string>;
  /** Lower-case token of Content-Disposition. */
  disposition?: string;
  /** Parameters of Content-Disposition; present exactly when `disposition` is. */
  dispositionParams?: Record<string, string>;
  /** Content-ID as sent, angle brackets included; raw. */
  id?: string;
  /** Content-Description; raw. */
  description?: string;
  /** Content-Transfer-Encoding, lower case; `7bit` when absent. */
  encoding: string;
  /** Content-Language tags as sent. */
  language?: string[];
  /** Content-Location; raw. */
  location?: string;
  /** Content-MD5; raw. */
  md5?: string;
  /** First byte of the part's own header. */
  headerStart: number;
  /** First byte of its body, behind the empty line; equals `headerStart` when there is no header. */
  headerEnd: number;
  /** One past the body's last byte; the line end in front of a delimiter belongs to the delimiter (RFC 2046 5.1.1). */
  bodyEnd: number;
  /** Bytes of the encoded body: `bodyEnd - headerEnd`. */
  size: number;
  /** Line ends in the encoded body; for `text/*` and embedded messages. */
  lines?: number;
  /** Present exactly on multiparts; never empty (see `opaque`). */
  children?: Part[];
  /** Present exactly on `message/rfc822` and `message/global`. */
  message?: EmbeddedMessage;
  /**
   * The content could not be divided (delimiter missing, embedded message transfer-encoded) or was not (a limit): the one child, or the embedded
   * structure, is a headerless text/plain part over the whole body.
   */
  opaque?: true;
}

/** The message as its root entity. */
export type MessageStructure = Part;

export interface EmbeddedMessage {
  envelope: Envelope;
  structure: MessageStructure;
}

/** Message identifiers without angle brackets; raw. RFC 5322 3.6.4. */
export interface MessageIds {
  own?: string;
  inReplyTo: string[];
  references: string[];
}

/** What is stored with every message so that listing and FETCH need not read its bytes. */
export interface MessageSummary {
  envelope: Envelope;
  structure: MessageStructure;
  /** First words of the text, Unicode, at most `previewMaxChars` UTF-16 units. */
  preview?: string;
  messageIds: MessageIds;
  /** The Date field, milliseconds since the Unix epoch, when it can be read. */
  sentAtMs?: number;
}
