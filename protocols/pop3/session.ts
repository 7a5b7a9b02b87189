/**
 * One POP3 connection from greeting to end: takes commands in order, however many come at once (PIPELINING), runs them one at a time, and answers. Whatever
 * happens inside becomes a status line, or the end of this one connection; the lock of the maildrop goes with it.
 */
import { defaultGrammarLimits } from '../imap/grammar/limits.js';
import { Input } from '../imap/input.js';
import { ConnectionClosed, Output } from '../imap/output.js';
import type { Command } from './commands/command.js';
import { commands } from './commands/index.js';
import { SessionContext } from './context.js';
import { parseCommand } from './grammar/command.js';
import { commandSeconds, commandsTotal, sessionsOpen, sessionsTotal } from './metrics.js';
import { err, formatReply, type Reply, replyOfError } from './replies.js';
import type { Pop3Connection, Pop3Services } from './types.js';

/** First byte of a TLS record that opens a handshake: a client that speaks TLS on the plain port. */
const tlsHandshakeByte = 0x16;

export class Pop3Session {
  readonly #context: SessionContext;
  readonly #services: Pop3Services;
  readonly #startedMs: number;
  #done: Promise<void> | undefined;
  #isTurnedAway = false;
  #lastWord = 'The server is going down, nothing was removed';

  constructor(connection: Pop3Connection, services: Pop3Services) {
    const { limits, clock } = services;
    this.#services = services;
    this.#startedMs = clock.monotonicMs();
    const output = new Output(connection.socket, clock, limits);
    const isAlien = connection.secure ? undefined : (bytes: Buffer) => bytes[0] === tlsHandshakeByte;
    // Lines are all that is read of the reader: of its limits only theirs matters.
    const grammar = { ...defaultGrammarLimits, maxLineBytes: limits.maxLineBytes };
    const input = new Input(connection.socket, clock, grammar, limits.maxBufferedInputBytes, isAlien);
    this.#context = new SessionContext(connection, services, input, output);
  }

  /** Login name, once there is one. */
  get login(): string | undefined {
    return this.#context.login;
  }

  /** Serves the connection; resolves when it is over, and never rejects. */
  run(): Promise<void> {
    this.#done ??= this.#serve();
    return this.#done;
  }

  /** Says so and closes as soon as no command is running; nothing is removed. Resolves when the session is over. */
  drain(): Promise<void> {
    this.#context.isDraining = true;
    this.#context.input.wake();
    return this.run();
  }

  /** The same since this server can't serve anybody now: another one perhaps can. */
  turnAway(): void {
    this.#isTurnedAway = true;
    this.#lastWord = 'The server can not serve you now, nothing was removed';
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
      context.output.write(`+OK ${this.#services.serverName} Starling ready\r\n`);
      await this.#loop();
    } catch (error) {
      if (!(error instanceof ConnectionClosed)) context.logger.error({ err: error }, 'a POP3 session failed');
    } finally {
      if (context.isDraining && !context.isQuitting && !context.input.hasEnded)
        context.output.write(formatReply(err(this.#lastWord, 'SYS/TEMP')));
      // The store can't be reached: giving the lock back takes until it can, or fails.
      if (this.#isTurnedAway) context.output.end();
      else context.output.flush();
      // The next session of this user need not wait until the connection is closed.
      await context.dispose();
      if (!this.#isTurnedAway) context.output.end();
      sessionsOpen.dec();
    }
  }

  async #loop(): Promise<void> {
    const context = this.#context;
    while (!context.isQuitting) {
      if (context.isDraining) return;
      const line = await this.#nextLine();
      if (line === undefined) return;
      await this.#command(line);
      if (context.badCommands > this.#services.limits.maxBadCommands) {
        context.output.write(formatReply(err('Too many bad commands')));
        return;
      }
      await context.output.ready();
    }
  }

  /** The next line, waiting for bytes as long as the state allows; undefined when the session is to end. */
  async #nextLine(): Promise<string | undefined> {
    const { input, output } = this.#context;
    for (;;) {
      const event = input.reader.nextLine();
      if (event?.kind === 'line') return event.text;
      if (event?.kind === 'fault') {
        this.#context.badCommands++;
        output.write(formatReply(err('Line too long')));
        if (event.fatal || this.#context.badCommands > this.#services.limits.maxBadCommands) return undefined;
        continue;
      }
      output.flush();
      if (this.#context.isDraining) return undefined;
      const timeoutMs = this.#timeoutMs();
      const result = timeoutMs <= 0 ? 'timeout' : await input.wait(timeoutMs);
      // RFC 1939 section 3: a session that has timed out ends without a word, and without removing anything.
      if (result === 'ended' || result === 'timeout') return undefined;
    }
  }

  #timeoutMs(): number {
    const { limits, clock } = this.#services;
    if (this.#context.state === 'transaction') return limits.idleTimeoutMs;
    return this.#startedMs + limits.loginTimeoutMs - clock.monotonicMs();
  }

  async #command(line: string): Promise<void> {
    const context = this.#context;
    const { keyword, rest } = parseCommand(line);
    const command = commands.get(keyword);
    let reply: Reply;
    if (!command) reply = err('Unknown command');
    else if (!command.states.includes(context.state))
      reply = err(context.state === 'authorization' ? 'Log in first' : 'Not allowed now');
    else {
      await this.#run(command, rest);
      return;
    }
    context.badCommands++;
    commandsTotal.inc({ command: command?.name ?? 'unknown', result: 'err' });
    context.output.write(formatReply(reply));
  }

  async #run(command: Command, rest: string): Promise<void> {
    const context = this.#context;
    const { clock } = this.#services;
    const { name } = command;
    const startedMs = clock.monotonicMs();
    let reply: Reply;
    try {
      reply = await command.run(context, rest);
    } catch (error) {
      if (error instanceof ConnectionClosed) {
        commandsTotal.inc({ command: name, result: 'aborted' });
        throw error;
      }
      const known = replyOfError(error);
      if (!known) context.logger.error({ err: error, command: name }, 'a POP3 command failed');
      reply = known ?? err('Internal error', 'SYS/TEMP');
    }
    // Who is known may ask in vain, for messages that others remove, say.
    if (!reply.isOk && context.login === undefined) context.badCommands++;
    else if (reply.isOk && context.login !== undefined) context.badCommands = 0;
    commandsTotal.inc({ command: name, result: reply.isOk ? 'ok' : 'err' });
    commandSeconds.observe({ command: name }, (clock.monotonicMs() - startedMs) / 1000);
    if (!reply.isSent) context.output.write(formatReply(reply));
  }
}
