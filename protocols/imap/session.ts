/**
 * One IMAP connection from greeting to end: takes commands in order, runs them one at a time, and answers. Whatever happens inside becomes a
 * tagged reply, or the end of this one connection.
 */

import { capabilities } from './capabilities.js';
import type { Command } from './command.js';
import { announcesMessage, runAppend } from './commands/append.js';
import { commands } from './commands/index.js';
import { type Invocation, SessionContext } from './context.js';
import { Cursor } from './grammar/cursor.js';
import { type RawCommand, type ReaderEvent, readTag } from './grammar/reader.js';
import { Input } from './input.js';
import { commandSeconds, commandsTotal, sessionsOpen, sessionsTotal } from './metrics.js';
import { ModseqWatch, type NewsOptions, tellNews } from './news.js';
import { ConnectionClosed, Output } from './output.js';
import { bad, no, type Reply, replyOfError, uidRequired } from './replies.js';
import type { ImapConnection, ImapServices } from './types.js';

/** First byte of a TLS record that opens a handshake: a client that speaks TLS on the plain port. */
const tlsHandshakeByte = 0x16;

/** Pause before a store that failed is asked for news again. */
const newsRetryMs = 5_000;

/** RFC 9051 6.3.12: a message appended to the selected mailbox is announced at once. */
const appendNews: NewsOptions = { looks: true, expunges: true };

export class ImapSession {
  readonly #context: SessionContext;
  readonly #services: ImapServices;
  #done: Promise<void> | undefined;
  #lastWord = 'BYE [UNAVAILABLE] Server is going down';

  constructor(connection: ImapConnection, services: ImapServices) {
    const { limits, clock } = services;
    this.#services = services;
    const output = new Output(connection.socket, clock, limits);
    const isAlien = connection.secure ? undefined : (bytes: Buffer) => bytes[0] === tlsHandshakeByte;
    const input = new Input(connection.socket, clock, limits.preAuthGrammar, limits.maxBufferedInputBytes, isAlien);
    this.#context = new SessionContext(connection, services, input, output);
  }

  /** Login name, once there is one. */
  get login(): string | undefined {
    return this.#context.account?.login;
  }

  /** Serves the connection; resolves when it is over, and never rejects. */
  run(): Promise<void> {
    this.#done ??= this.#serve();
    return this.#done;
  }

  /** Says `* BYE` as soon as no command is running and closes. Resolves when the session is over. */
  drain(): Promise<void> {
    this.#context.isDraining = true;
    this.#context.input.wake();
    return this.run();
  }

  /** Says `* BYE` as `drain` does, since this server can't serve anybody now: another one perhaps can. */
  turnAway(): void {
    this.#lastWord = 'BYE [UNAVAILABLE] The server can not serve you now, please log in again';
    void this.drain();
  }

  /** Cuts the connection, whatever is running: a response may be half written, so without a word. */
  stop(): void {
    this.#context.output.socket.destroy();
  }

  async #serve(): Promise<void> {
    const context = this.#context;
    sessionsOpen.inc();
    sessionsTotal.inc();
    try {
      context.untagged(`OK [CAPABILITY ${capabilities(context)}] ${this.#services.serverName} Starling ready`);
      await this.#loop();
    } catch (error) {
      if (!(error instanceof ConnectionClosed)) context.logger.error({ err: error }, 'an IMAP session failed');
    } finally {
      if (context.isDraining && !context.isLoggingOut && !context.input.hasEnded) context.untagged(this.#lastWord);
      context.output.end();
      context.dispose();
      sessionsOpen.dec();
    }
  }

  async #loop(): Promise<void> {
    const context = this.#context;
    while (!context.isLoggingOut) {
      if (context.isDraining) return;
      const event = await this.#nextEvent();
      if (!event) return;
      switch (event.kind) {
        case 'command':
          await this.#command(event.command);
          break;
        case 'literal':
          await this.#literal(event);
          break;
        case 'fault':
          if (!this.#fault(event)) return;
          break;
        default:
          // Chunks and lines come only to those who asked for them; `skipped` needs no answer.
          break;
      }
      if (context.badCommands > this.#services.limits.maxBadCommands) {
        context.untagged('BYE Too many bad commands');
        return;
      }
      await context.output.ready();
    }
  }

  /** The next event, waiting for bytes as long as the state allows; undefined when the session is to end. */
  readonly #nextEvent = async (): Promise<ReaderEvent | undefined> => {
    const { input, output } = this.#context;
    for (;;) {
      const event = input.next();
      if (event) return event;
      output.flush();
      if (this.#context.isDraining) return undefined;
      const receivedBytes = input.receivedBytes;
      // What came in while the store was read would wake nobody any more.
      if ((await this.#tellBetween()) || input.receivedBytes !== receivedBytes) continue;
      const timeoutMs = this.#timeoutMs();
      // A notice that still stands could not be told for want of the store.
      const mustRetry = this.#listensNow && this.#hasNews && timeoutMs > newsRetryMs;
      const result = timeoutMs <= 0 ? 'timeout' : await input.wait(mustRetry ? newsRetryMs : timeoutMs);
      if (result === 'ended') return undefined;
      if (result === 'timeout' && !mustRetry) {
        this.#context.untagged('BYE Autologout; too long without a command');
        this.#context.isLoggingOut = true;
        return undefined;
      }
    }
  };

  /** NOTIFY has set up something, and no command has begun to come in. */
  get #listensNow(): boolean {
    const { notifier, input } = this.#context;
    return notifier?.isListening === true && !input.reader.isInsideCommand;
  }

  get #hasNews(): boolean {
    return this.#context.hasNotice || this.#context.hasOtherNotice;
  }

  /** RFC 5465: what the client wants to hear of is told while no command runs, too. Answers whether something was. */
  async #tellBetween(): Promise<boolean> {
    const context = this.#context;
    if (!this.#hasNews || !this.#listensNow) return false;
    const hasTold = await tellNews(context, { looks: false, expunges: context.notifier!.tellsExpungesAtOnce });
    if (hasTold) await context.output.ready();
    return hasTold;
  }

  #timeoutMs(): number {
    const { limits, clock } = this.#services;
    if (!this.#context.account) return this.#context.anonymousSinceMs + limits.loginTimeoutMs - clock.monotonicMs();
    return this.#context.input.reader.isInsideCommand ? limits.literalTimeoutMs : limits.idleTimeoutMs;
  }

  /** Decides about a literal: part of a command, a message, or refused. */
  async #literal(event: Extract<ReaderEvent, { kind: 'literal' }>): Promise<void> {
    const context = this.#context;
    const { reader } = context.input;
    const uploads = context.account && announcesMessage(event.soFar, context);
    if (uploads) {
      const tag = readTag(event.soFar.texts[0]!);
      await this.#conclude(uploads, tag, () => runAppend(context, event, this.#nextEvent), appendNews);
      return;
    }
    if (reader.fits(event.sizeBytes)) {
      if (event.synchronising) context.output.write('+ Ready for literal data\r\n');
      reader.collect();
      return;
    }
    const tag = readTag(event.soFar.texts[0] ?? '');
    context.badCommands++;
    if (!reader.refuse()) {
      for (let next = await this.#nextEvent(); next?.kind !== 'skipped'; next = await this.#nextEvent()) {
        if (!next || next.kind === 'fault') throw new ConnectionClosed();
      }
    }
    context.output.write(`${tag} BAD [TOOBIG] Literal too large\r\n`);
  }

  /** False when the connection can't go on. */
  #fault(event: Extract<ReaderEvent, { kind: 'fault' }>): boolean {
    this.#context.badCommands++;
    const text = event.fault === 'bad-literal' ? 'Bad literal' : '[LIMIT] Line too long';
    this.#context.output.write(`${event.tag} BAD ${text}\r\n`);
    if (event.fatal) this.#context.untagged('BYE The connection is out of step');
    return !event.fatal;
  }

  async #command(raw: RawCommand): Promise<void> {
    const context = this.#context;
    const cursor = new Cursor(raw, context.account ? this.#services.limits.grammar : this.#services.limits.preAuthGrammar);
    const tag = readTag(raw.texts[0]!);
    let command: Command | undefined;
    const invocation: Invocation = { tag, byUid: false };
    let problem: Reply | undefined;
    try {
      cursor.tag();
      cursor.space();
      let name = cursor.word();
      if (name === 'UID') {
        cursor.space();
        name = cursor.word();
        invocation.byUid = true;
      }
      command = commands.get(name);
      if (name === 'APPEND' || name === 'REPLACE')
        problem = bad(context.account ? `${name} needs a message literal` : 'Log in first');
      else if (!command || (invocation.byUid && !command.takesUid)) problem = bad('Unknown command');
      else if (!command.states.includes(context.state)) problem = bad('Not allowed now');
      // RFC 9586 3.1: these name messages by number, unless they come with UID; EXPUNGE names none.
      else if (context.uidOnly && command.takesUid && !invocation.byUid && name !== 'EXPUNGE') problem = uidRequired;
    } catch (error) {
      problem = replyOfError(error) ?? bad('Bad command');
    }
    if (problem || !command) {
      context.badCommands++;
      commandsTotal.inc({ command: command?.name ?? 'unknown', result: 'bad' });
      const reply = problem ?? bad('Unknown command');
      context.output.write(`${tag} ${formatReply(reply)}\r\n`);
      return;
    }
    if (context.notifier && namingCommands.has(command.name)) context.notifier.passOver(namesIn(raw, context));
    const known = command;
    await this.#conclude(known.name, tag, () => known.run(context, cursor, invocation), {
      looks: known.looksForNews === true,
      expunges: !known.holdsExpunges || invocation.byUid,
      holdsForNumbers: known.holdsExpunges === true,
    });
  }

  /** Runs, turns errors into replies, tells news, and sends the tagged response. */
  async #conclude(name: string, tag: string, run: () => Promise<Reply> | Reply, news: NewsOptions): Promise<void> {
    const context = this.#context;
    const { clock } = this.#services;
    const startedMs = clock.monotonicMs();
    context.begin(tag);
    const modseqWatch = new ModseqWatch(context);
    let reply: Reply;
    try {
      reply = await run();
    } catch (error) {
      if (error instanceof ConnectionClosed) {
        commandsTotal.inc({ command: name, result: 'aborted' });
        throw error;
      }
      const known = replyOfError(error);
      if (!known) context.logger.error({ err: error, command: name }, 'an IMAP command failed');
      reply = known ?? no('Internal error', 'SERVERBUG');
    }
    // A client that leaves has no use for news, and does not expect any behind the BYE.
    if (!context.isLoggingOut) await this.#tellNews(news, reply);
    const hasRoom = reply.status === 'OK' && reply.code === undefined;
    const code = context.isLoggingOut ? undefined : await modseqWatch.conclude(hasRoom);
    if (code) reply = { ...reply, code };
    if (reply.status === 'BAD') context.badCommands++;
    // Who is known, and gets on, may ask in vain now and then for as long as the connection lasts.
    else if (reply.status === 'OK' && context.account) context.badCommands = 0;
    commandsTotal.inc({ command: name, result: reply.status.toLowerCase() });
    commandSeconds.observe({ command: name }, (clock.monotonicMs() - startedMs) / 1000);
    if (!reply.isSent) context.output.write(`${tag} ${formatReply(reply)}\r\n`);
  }

  /** What the command has done is done: its reply must not suffer from news that can't be had now. */
  async #tellNews(news: NewsOptions, reply: Reply): Promise<void> {
    const context = this.#context;
    try {
      // RFC 7162 3.2.10.2: a UID SEARCH that names messages by number is like a SEARCH.
      const expunges = news.expunges && !(news.holdsForNumbers && context.usesNumbers);
      await tellNews(context, { ...news, expunges, ownRemovals: reply.hasRemoved === true });
    } catch (error) {
      if (error instanceof ConnectionClosed) throw error;
      context.logger.error({ err: error }, 'news could not be told');
    }
  }
}

/** Commands that change names and subscriptions of mailboxes. */
const namingCommands: ReadonlySet<string> = new Set([
  'CREATE',
  'DELETE',
  'RENAME',
  'SUBSCRIBE',
  'UNSUBSCRIBE',
  'SETMETADATA',
  'SETACL',
]);

/** The mailboxes that one of them names, as far as it is well formed. */
function namesIn(raw: RawCommand, context: SessionContext): string[][] {
  const paths: string[][] = [];
  try {
    const cursor = new Cursor(raw, context.services.limits.grammar);
    cursor.tag();
    cursor.space();
    cursor.word();
    while (cursor.takes(' ') && !cursor.sees('(')) {
      const name = cursor.astring();
      paths.push(name === '' ? [] : context.path(name));
    }
  } catch {
    // The command itself will say so.
  }
  return paths;
}

function formatReply({ status, code, text }: Reply): string {
  return code ? `${status} [${code}] ${text}` : `${status} ${text}`;
}
