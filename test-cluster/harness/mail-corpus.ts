/**
 * A mailbox as people have it, the same at every run: conversations with References, some HTML and attachments, few unread, senders of uneven diligence. Text is
 * of made-up words whose frequencies fall as those of a language do, and of a few marks that searches can be tried with.
 */

export interface CorpusMessage {
  /** The whole message, ending in CRLF. */
  bytes: Buffer;
  flags: readonly string[];
  /** As APPEND takes it, without quotes. */
  internalDate: string;
}

/** What stands in how many of the messages: about one in 200 comes from him, one in 97 names it in its text. */
export const corpusMarks = { sender: 'Marlene', word: 'quartzmill' } as const;

const vocabularySize = 6_000;
const senderCount = 200;
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const firstSecond = Date.UTC(2019, 0, 7, 6) / 1_000;
const secondsBetween = 900;

/** Numbers from 0 to below 1 that are the same for the same seed (a xorshift of 32 bits). */
function numbersFrom(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e37_79b1) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const syllables = 'ba ke lo mi nu ra se ti vo za den gar hol kim lun mor net pas rik sol tam ver win yor'.split(' ');
const words = Array.from({ length: vocabularySize }, (_, index) => {
  const next = numbersFrom(index + 77);
  return Array.from({ length: 1 + Math.floor(next() * 3.2) }, () => syllables[Math.floor(next() * syllables.length)]).join('');
});
const givenNames =
  'Ada Boris Carla Daniel Elif Farid Greta Hugo Ines Jonas Kaya Lena Miro Nora Otto Petra Quirin Rosa Sven Tilda'.split(' ');
const familyNames = 'Abel Brandt Celik Dahl Eberle Fuchs Grün Haas Iversen Jung'.split(' ');

function senderOf(pick: number): { name: string; address: string } {
  if (pick === 0) return { name: `${corpusMarks.sender} Ziegler`, address: 'marlene@outside.test' };
  const given = givenNames[pick % givenNames.length]!;
  const family = familyNames[Math.floor(pick / givenNames.length) % familyNames.length]!;
  const encoded = family === 'Grün' ? `=?utf-8?q?${given}_Gr=C3=BCn?=` : `${given} ${family}`;
  return { name: encoded, address: `${given.toLowerCase()}.${pick}@outside.test` };
}

const two = (value: number) => String(value).padStart(2, '0');

function dateField(second: number): string {
  const at = new Date(second * 1_000);
  const day = `${days[at.getUTCDay()]}, ${at.getUTCDate()} ${months[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
  return `${day} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())} +0000`;
}

function internalDate(second: number): string {
  const at = new Date(second * 1_000);
  const day = `${String(at.getUTCDate()).padStart(2, ' ')}-${months[at.getUTCMonth()]}-${at.getUTCFullYear()}`;
  return `${day} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())} +0000`;
}

/** Lines of up to 72 characters, about `octets` of them. */
function prose(next: () => number, octets: number, mark: string | undefined): string {
  const lines: string[] = [];
  let line = mark ?? '';
  let length = 0;
  while (length < octets) {
    const word = words[Math.floor(next() ** 3 * vocabularySize)]!;
    if (line.length + word.length > 71) {
      lines.push(line);
      length += line.length + 2;
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return `${lines.join('\r\n')}\r\n`;
}

const messageId = (index: number) => `<c${index}@outside.test>`;

/** Which message a message answers; undefined for the first of a conversation. */
function parentOf(index: number): number | undefined {
  const next = numbersFrom(index * 2 + 1);
  next();
  return index > 0 && next() < 0.6 ? Math.max(0, index - 1 - Math.floor(next() ** 2 * 200)) : undefined;
}

/** From the first of the conversation to the parent, at most the last ten. */
function ancestors(index: number): number[] {
  const line: number[] = [];
  for (let at = parentOf(index); at !== undefined && line.length < 10; at = parentOf(at)) line.unshift(at);
  return line;
}

function rootOf(index: number): number {
  let root = index;
  for (let at = parentOf(index); at !== undefined; at = parentOf(at)) root = at;
  return root;
}

function body(index: number, next: () => number, octets: number): { type: string; text: string } {
  const mark = index % 97 === 5 ? corpusMarks.word : undefined;
  const text = prose(next, octets, mark);
  const kind = next();
  if (kind < 0.6) return { type: 'text/plain; charset=utf-8', text };
  const boundary = `=_part${index}`;
  const plain = `--${boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n${text}\r\n`;
  if (kind < 0.85) {
    const html = `<html><body><p>${text.slice(0, octets / 2).replaceAll('\r\n', '<br>\r\n')}</p></body></html>\r\n`;
    const second = `--${boundary}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n${html}\r\n`;
    return { type: `multipart/alternative; boundary="${boundary}"`, text: `${plain}${second}--${boundary}--\r\n` };
  }
  const data = Buffer.from(prose(next, 900, undefined))
    .toString('base64')
    .replace(/.{76}/g, '$&\r\n');
  const headers = `Content-Type: application/octet-stream; name="f${index}.bin"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename="f${index}.bin"`;
  const second = `--${boundary}\r\n${headers}\r\n\r\n${data}\r\n`;
  return { type: `multipart/mixed; boundary="${boundary}"`, text: `${plain}${second}--${boundary}--\r\n` };
}

/**
 * Number `index` (from 0) of the mailbox. `octets` is about how long its text is; default 1,500 to 3,000, which with all else makes 2 to 4 kB.
 */
export function corpusMessage(index: number, octets?: number): CorpusMessage {
  const next = numbersFrom(index * 2 + 2);
  next();
  const sender = senderOf(Math.floor(next() * senderCount));
  // Mail does not come in the order in which it was written.
  const received = firstSecond + index * secondsBetween;
  const written = received - Math.floor(next() ** 4 * 86_400);
  const line = ancestors(index);
  const subject = prose(numbersFrom(rootOf(index) + 5_000_000), 40, undefined)
    .split('\r\n')[0]!
    .slice(0, 50);
  const { type, text } = body(index, next, octets ?? 1_500 + Math.floor(next() * 1_500));
  const fields = [
    'Return-Path: <bounce@outside.test>',
    `Received: from mx.outside.test (mx.outside.test [192.0.2.${index % 250}])\r\n\tby mail.example.test with ESMTPS id q${index};\r\n\t${dateField(received)}`,
    `Date: ${dateField(written)}`,
    `From: ${sender.name} <${sender.address}>`,
    `To: Alice <alice@example.test>${index % 7 === 0 ? ', Bob <bob@example.test>' : ''}`,
    ...(index % 11 === 0 ? ['Cc: team@example.test'] : []),
    `Subject: ${line.length > 0 ? 'Re: ' : ''}${subject}`,
    `Message-ID: ${messageId(index)}`,
    ...(line.length > 0 ? [`In-Reply-To: ${messageId(line.at(-1)!)}`, `References: ${line.map(messageId).join('\r\n ')}`] : []),
    'MIME-Version: 1.0',
    `Content-Type: ${type}`,
    'X-Mailer: Corpus 1',
  ];
  const flags = [
    ...(next() < 0.9 ? ['\\Seen'] : []),
    ...(next() < 0.12 ? ['\\Answered'] : []),
    ...(next() < 0.03 ? ['\\Flagged'] : []),
    ...(next() < 0.02 ? ['$Forwarded'] : []),
  ];
  return { bytes: Buffer.from(`${fields.join('\r\n')}\r\n\r\n${text}`), flags, internalDate: internalDate(received) };
}

/** One APPEND of all `messages` (RFC 3502), with literals that ask for no leave. */
export function appendCommand(mailbox: string, messages: readonly CorpusMessage[]): Buffer {
  const parts: Buffer[] = [Buffer.from(`APPEND ${mailbox}`)];
  for (const { bytes, flags, internalDate } of messages) {
    parts.push(Buffer.from(` (${flags.join(' ')}) "${internalDate}" {${bytes.length}+}\r\n`), bytes);
  }
  return Buffer.concat(parts);
}
