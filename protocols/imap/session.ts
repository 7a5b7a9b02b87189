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
import { ConnectionClosed, Output } from './output.js';
import { bad, no, type Reply, replyOfError } from './replies.js';
import type { ImapConnection, ImapServices } from './types.js';

/** First byte of a TLS record that opens a handshake: a client that speaks TLS on the plain port. */
const tlsHandshakeByte = 0x16;

/** What is told at the end of a command. */
interface NewsRule {
  /** Asks the store even without a notice. */
  looks: boolean;
  /** EXPUNGE may be told. */
  expunges: boolean;
}

/** RFC 9051 6.3.12: a message appended to the selected mailbox is announced at once. */
const appendNews: NewsRule = { looks: true, expunges: true };

export class ImapSession {
  readonly #context: SessionContext;
  readonly #services: ImapServices;
  readonly #startedMs: number;
  #done: Promise<void> | undefined;

  constructor(connection: ImapConnection, services: ImapServices) {
    const { limits, clock } = services;
    this.#services = services;
    this.#startedMs = clock.monotonicMs();
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
      if (context.isDraining && !context.isLoggingOut && !context.input.hasEnded)
        context.untagged('BYE [UNAVAILABLE] Server is going down');
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
      const timeoutMs = this.#timeoutMs();
      const result = timeoutMs <= 0 ? 'timeout' : await input.wait(timeoutMs);
      if (result === 'ended') return undefined;
      if (result === 'timeout') {
        this.#context.untagged('BYE Autologout; too long without a command');
        this.#context.isLoggingOut = true;
        return undefined;
      }
    }
  };

  #timeoutMs(): number {
    const { limits, clock } = this.#services;
    if (!this.#context.account) return this.#startedMs + limits.loginTimeoutMs - clock.monotonicMs();
    return this.#context.input.reader.isInsideCommand ? limits.literalTimeoutMs : limits.idleTimeoutMs;
  }

  /** Decides about a literal: part of a command, a message, or refused. */
  async #literal(event: Extract<ReaderEvent, { kind: 'literal' }>): Promise<void> {
    const context = this.#context;
    const { reader } = context.input;
    if (context.account && announcesMessage(event.soFar, context)) {
      const tag = readTag(event.soFar.texts[0]!);
      await this.#conclude('APPEND', tag, () => runAppend(context, event, this.#nextEvent), appendNews);
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
    const text = event.fault === 'line-too-long' ? '[LIMIT] Line too long' : 'Bad literal';
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
      if (name === 'APPEND') problem = bad(context.account ? 'APPEND needs a message literal' : 'Log in first');
      else if (!command || (invocation.byUid && !command.takesUid)) problem = bad('Unknown command');
      else if (!command.states.includes(context.state)) problem = bad('Not allowed now');
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
    const known = command;
    await this.#conclude(known.name, tag, () => known.run(context, cursor, invocation), {
      looks: known.looksForNews === true,
      expunges: !known.holdsExpunges || invocation.byUid,
    });
  }

  /** Runs, turns errors into replies, tells news, and sends the tagged response. */
  async #conclude(name: string, tag: string, run: () => Promise<Reply> | Reply, news: NewsRule): Promise<void> {
    const context = this.#context;
    const { clock } = this.#services;
    const startedMs = clock.monotonicMs();
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
    await this.#tellNews(news);
    if (reply.status === 'BAD') context.badCommands++;
    // Who is known, and gets on, may ask in vain now and then for as long as the connection lasts.
    else if (reply.status === 'OK' && context.account) context.badCommands = 0;
    commandsTotal.inc({ command: name, result: reply.status.toLowerCase() });
    commandSeconds.observe({ command: name }, (clock.monotonicMs() - startedMs) / 1000);
    if (!reply.isSent) context.output.write(`${tag} ${formatReply(reply)}\r\n`);
  }

  /** What has changed meanwhile, in front of the tagged response; EXPUNGE where RFC 9051 7.5.1 allows it. */
  async #tellNews(news: NewsRule): Promise<void> {
    const context = this.#context;
    if (!context.selected) return;
    try {
      if (context.hasNotice || news.looks) await context.refresh();
    } catch (error) {
      // What the command has done is done: its reply must not suffer from news that can't be had now.
      context.logger.warn({ err: error }, 'no news: the store can not be read');
    }
    context.announce(news.expunges);
  }
}

function formatReply({ status, code, text }: Reply): string {
  return code ? `${status} [${code}] ${text}` : `${status} ${text}`;
}
