/** Takes one line after the other out of the channel, refuses what can't be one, and runs its command. */
import { decodeLine, splitCommand } from '../grammar/command.js';
import { reply } from '../grammar/reply.js';
import type { Channel } from './channel.js';
import type { SessionCore } from './core.js';
import type { SmtpLimits } from './limits.js';
import { takenInClear, verbs } from './verbs/index.js';

const CR = 13;
const LF = 10;
/** First octet of a TLS record that carries a ClientHello. */
const tlsHandshakeOctet = 0x16;
const lineTooLong = 'The line is too long';

/** RFC 5321 3.1: the client waits for the greeting. Who does not is a bot, or speaks TLS or HTTP. */
export function refuseEarlyTalk(session: SessionCore, chunk: Buffer) {
  if (chunk[0] === tlsHandshakeOctet && !session.secure) refuseTls(session);
  else session.refuse('connect', reply(554, '5.5.1', 'You spoke before the greeting', true));
}

function refuseTls(session: SessionCore) {
  const text = 'This port begins in plain text: use STARTTLS, or the port for implicit TLS';
  session.refuse('connect', reply(500, '5.5.2', text, true));
}

export class CommandReader {
  /** The beginning of the line that comes was dropped: it is too long. */
  #overlong = false;

  constructor(
    private readonly session: SessionCore,
    private readonly channel: Channel,
  ) {}

  /** One line, if there is a whole one; `onLine` hears of it before its command runs. */
  take(onLine: () => void): boolean {
    const session = this.session;
    const channel = this.channel;
    const { input, at: start } = channel;
    if (input[start] === tlsHandshakeOctet && !session.secure && !session.lineTaker) {
      refuseTls(session);
      return false;
    }
    const lf = input.indexOf(LF, start);
    if (lf < 0) {
      const { maxAuthLineBytes, maxCommandBytes } = session.limits;
      if (input.length - start > Math.max(maxAuthLineBytes, maxCommandBytes)) {
        this.#overlong = true;
        channel.dropInput();
      }
      return false;
    }
    // Without PIPELINING nothing may come before the last reply has left (RFC 2920 3).
    if (session.policy?.extensions?.PIPELINING === false && channel.hasUnsent) {
      session.refuse('command', reply(503, '5.5.0', 'You sent ahead, but PIPELINING is not offered', true));
      return false;
    }
    channel.at = lf + 1;
    onLine();
    const tooLong = this.#overlong ? lineTooLong : undefined;
    this.#overlong = false;
    const problem = tooLong ?? lineProblem(input, start, lf, session.limits, session.lineTaker !== undefined);
    if (problem) {
      session.lineTaker = undefined;
      session.protocolError('command', reply(500, '5.5.2', problem));
      return true;
    }
    const line = input.subarray(start, lf > start && input[lf - 1] === CR ? lf - 1 : lf);
    if (session.lineTaker) session.lineTaker(line);
    else runCommand(session, line);
    return true;
  }
}

/** What is wrong with the line in [start, lf]; undefined when nothing is. `isAuthStep`: it answers a challenge. */
function lineProblem(input: Buffer, start: number, lf: number, limits: SmtpLimits, isAuthStep: boolean): string | undefined {
  const maxBytes = isAuthStep || isAuthLine(input, start) ? limits.maxAuthLineBytes : limits.maxCommandBytes;
  if (lf + 1 - start > maxBytes) return lineTooLong;
  const bare = lf === start || input[lf - 1] !== CR;
  return bare && limits.bareLineEnds === 'refuse' ? 'Lines end with CR LF' : undefined;
}

function runCommand(session: SessionCore, line: Buffer) {
  const text = decodeLine(line);
  if (text === undefined) {
    session.protocolError('command', reply(500, '5.5.2', 'The line is not UTF-8, or has control characters in it'));
    return;
  }
  const { verb, argument } = splitCommand(text);
  const run = verbs.get(verb);
  if (run && session.policy?.requiresTls && !session.secure && !takenInClear(session, verb)) {
    // RFC 3207 4.
    session.protocolError('command', reply(530, '5.7.0', 'Must issue a STARTTLS command first'));
  } else if (run) run(session, argument, verb);
  else if (isHttp(text)) session.refuse('command', reply(554, '5.5.1', 'This is a mail server', true));
  else session.protocolError('command', reply(500, '5.5.1', 'Command not recognised'));
}

function isAuthLine(input: Buffer, start: number): boolean {
  const first = input[start];
  return (first === 0x41 || first === 0x61) && input.toString('latin1', start, start + 5).toUpperCase() === 'AUTH ';
}

/** A browser made to post to a mail port must not get a second line in. */
function isHttp(line: string): boolean {
  return /^(?:(?:GET|POST|PUT|HEAD|OPTIONS|CONNECT|PATCH|DELETE) \S+ HTTP\/|Host:)/i.test(line);
}
