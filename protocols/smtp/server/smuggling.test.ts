/**
 * The smuggling matrix: every mix of CR, LF, dot and text between a message and something that looks like commands, through DATA and BDAT,
 * cut anywhere. Only CRLF.CRLF may end DATA, only its length a chunk; everything before belongs to one message, or to none.
 */
import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../../ops/telemetry/index.js';
import { MemorySocket } from '../testing/memory-socket.js';
import type { SmtpHandler } from './handler.js';
import { SmtpSession } from './session.js';

const endOfData = '\r\n.\r\n';
/** What an attacker would like to be taken for commands. It ends a message of its own, legally. */
const smuggled = 'MAIL FROM:<evil@b.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nevil\r\n.\r\n';
const alphabet = ['\r', '\n', '.', 'a'];

function sequences(maxLength: number): string[] {
  const all = [''];
  for (let from = 0, length = 0; length < maxLength; length++) {
    const to = all.length;
    for (; from < to; from++) for (const octet of alphabet) all.push(all[from]! + octet);
  }
  return all;
}

type Rule = 'refuse' | 'normalise';

/** A session over memory that has been greeted; what it did is taken with `outcome`. */
class Subject {
  readonly socket = new MemorySocket();
  #senders: string[] = [];
  #messages: string[] = [];

  constructor(bareLineEnds: Rule) {
    const handler: SmtpHandler = {
      mailFrom: (_session, { address }) => void this.#senders.push(address),
      rcptTo: () => undefined,
      data: () => {
        const chunks: Buffer[] = [];
        return {
          write: (chunk) => void chunks.push(Buffer.from(chunk)),
          finish: () => {
            this.#messages.push(Buffer.concat(chunks).toString('latin1'));
            return { code: 250, text: 'kept' };
          },
          abort: () => undefined,
        };
      },
    };
    const many = 1_000_000_000;
    new SmtpSession({
      connection: { socket: this.socket, remoteAddress: '192.0.2.1', remotePort: 1, localPort: 25, secure: false },
      mode: 'mx',
      handler,
      hostname: 'mx.test',
      logger: silentLogger,
      limits: { bareLineEnds, maxErrors: many, maxMessages: many },
    }).start();
    this.socket.feed('EHLO a.test\r\n');
    this.socket.said();
  }

  /** Sends the pieces within a transaction that `begin` opens, and leaves the session as it was. */
  play(begin: string, pieces: string[]) {
    this.socket.feed(`MAIL FROM:<good@b.test>\r\nRCPT TO:<bob@example.test>\r\n${begin}`);
    for (const piece of pieces) if (piece !== '') this.socket.feed(piece);
    const outcome = { senders: this.#senders, messages: this.#messages };
    this.#senders = [];
    this.#messages = [];
    this.socket.feed('RSET\r\n');
    const said = this.socket.said();
    // In content there is no reply, and behind half a line another one.
    if (!said.endsWith('\r\n250 2.0.0 Reset\r\n'))
      throw new Error(`the session is not where it should be: ${JSON.stringify({ pieces, said })}`);
    return outcome;
  }
}

interface Outcome {
  senders: string[];
  messages: string[];
}

const areSame = (a: string[], b: string[]) => a.length === b.length && a.every((text, index) => text === b[index]);
const hasBareLineEnd = (text: string) => /[\r\n]/.test(text.replaceAll('\r\n', ''));
const repaired = (text: string) => text.replace(/\r\n|\r|\n/g, '\r\n');

/** What must come of a stream that begins in content, by the letter of RFC 5321 4.1.1.4 and 4.5.2. */
function expected(stream: string, rule: Rule): Outcome {
  // The content begins a line.
  const end = `\r\n${stream}`.indexOf(endOfData);
  const raw = stream.slice(0, end);
  const rest = stream.slice(end + 3);
  const refused = rule === 'refuse' && hasBareLineEnd(raw);
  const content = `\r\n${raw}`.replaceAll('\r\n.', '\r\n').slice(2);
  const messages = refused ? [] : [rule === 'refuse' ? content : repaired(content)];
  const senders = ['good@b.test'];
  // Only what follows a legal end is commands.
  if (rest.split('\n').includes('MAIL FROM:<evil@b.test>\r')) {
    senders.push('evil@b.test');
    messages.push('evil\r\n');
  }
  return { senders, messages };
}

/** Longer sequences are a thousand and more: each is cut in two at one place, all places get their turn. */
const maxLengthCutEverywhere = 4;
let turn = 0;

/** Whole, cut in two at each place in [from, to], and octet by octet there. */
function* cuts(stream: string, from: number, to: number, isLong = false): Generator<string[]> {
  yield [stream];
  const first = Math.max(1, from);
  const places = Math.min(to, stream.length - 1) - first + 1;
  const one = turn++ % places;
  for (let i = 0; i < places; i++) {
    if (!isLong || i === one) yield [stream.slice(0, first + i), stream.slice(first + i)];
  }
  yield [stream.slice(0, from), ...stream.slice(from, to + 1), stream.slice(to + 1)];
}

describe.each(['refuse', 'normalise'] as const)('where bare line ends are to %s', (rule) => {
  const subject = new Subject(rule);

  const check = (begin: string, pieces: string[], wanted: Outcome) => {
    const outcome = subject.play(begin, pieces);
    // Compared by hand first: a matcher for each of so many would take most of the time.
    if (!areSame(outcome.senders, wanted.senders) || !areSame(outcome.messages, wanted.messages))
      expect({ pieces, ...outcome }).toEqual({ pieces, ...wanted });
  };

  it.each([
    ['x', 5],
    ['', 4],
    ['x\r\n', 4],
  ])('DATA ends at CRLF.CRLF only (after %j)', (prefix, maxLength) => {
    for (const sequence of sequences(maxLength)) {
      const stream = prefix + sequence + smuggled;
      const wanted = expected(stream, rule);
      const isLong = sequence.length > maxLengthCutEverywhere;
      for (const pieces of cuts(stream, prefix.length, prefix.length + sequence.length, isLong))
        check('DATA\r\n', pieces, wanted);
    }
  });

  it('DATA, cut at every octet of everything', () => {
    for (const sequence of sequences(3)) {
      const stream = `x${sequence}${smuggled}`;
      const wanted = expected(stream, rule);
      for (const pieces of cuts(stream, 0, stream.length)) check('DATA\r\n', pieces, wanted);
    }
  });

  it('a sequence before a legal end changes nothing about that end', () => {
    for (const sequence of sequences(4)) {
      const stream = `x${sequence}${endOfData}${smuggled}`;
      const wanted = expected(stream, rule);
      expect(wanted.senders).toHaveLength(2);
      for (const pieces of cuts(stream, 1, 1 + sequence.length + endOfData.length)) check('DATA\r\n', pieces, wanted);
    }
  });

  it('BDAT ends where its length says', () => {
    for (const sequence of sequences(5)) {
      const content = `x${sequence}${smuggled}`;
      const refused = rule === 'refuse' && hasBareLineEnd(content);
      const wanted = { senders: ['good@b.test'], messages: refused ? [] : [rule === 'refuse' ? content : repaired(content)] };
      const last = `BDAT ${content.length} LAST\r\n`;
      const isLong = sequence.length > maxLengthCutEverywhere;
      for (const pieces of cuts(content, 1, 1 + sequence.length, isLong)) check(last, pieces, wanted);
      // Two chunks: a CR LF may be cut by the end of the first.
      for (let at = 1; !isLong && at <= 1 + sequence.length; at++) {
        const second = `BDAT ${content.length - at} LAST\r\n`;
        check(`BDAT ${at}\r\n`, [content.slice(0, at) + second + content.slice(at)], wanted);
      }
    }
  });
});
