/** What a command works with: the session's state, its connection, and the ways to answer. One per session. */
import type { Logger } from '../../ops/telemetry/index.js';
import { type MaildropLock, MaildropLockLost } from '../../store/mail/index.js';
import type { Input } from '../imap/input.js';
import type { Output } from '../imap/output.js';
import type { Principal } from '../sasl/contract.js';
import { offeredMechanisms, type SaslMechanismName } from '../sasl/index.js';
import { parseNumber } from './grammar/command.js';
import { Maildrop } from './maildrop.js';
import { err, Refusal } from './replies.js';
import type { Pop3Connection, Pop3Services } from './types.js';

export type SessionState = 'authorization' | 'transaction';

export class SessionContext {
  logger: Logger;
  isSecure: boolean;
  login: string | undefined;
  /** Named by USER; PASS must come next. */
  user: string | undefined;
  isQuitting = false;
  isDraining = false;
  authFailures = 0;
  badCommands = 0;
  #maildrop: Maildrop | undefined;
  #lock: MaildropLock | undefined;

  constructor(
    readonly connection: Pop3Connection,
    readonly services: Pop3Services,
    readonly input: Input,
    readonly output: Output,
  ) {
    this.isSecure = connection.secure;
    this.logger = services.logger;
  }

  get state(): SessionState {
    return this.#maildrop ? 'transaction' : 'authorization';
  }

  /** Where login is possible: under TLS, or wherever the operator says so. */
  get mayLogIn(): boolean {
    return this.isSecure || this.services.allowPlainAuth === true;
  }

  /** Mechanisms that may be used now. */
  get mechanisms(): SaslMechanismName[] {
    if (!this.mayLogIn) return [];
    const { sasl, scram } = this.services;
    return offeredMechanisms({
      backend: sasl,
      scram,
      channelBinding: this.isSecure ? this.connection.channelBinding : undefined,
    });
  }

  /** USER and PASS show the password as PLAIN does: they may be used where that may. */
  get offersUser(): boolean {
    if (!this.mayLogIn) return false;
    const allowed = this.services.sasl.allowedMechanisms?.();
    return allowed === undefined || allowed.includes('PLAIN');
  }

  get saslContext(): { remoteAddress: string; protocol: string } {
    return { remoteAddress: this.connection.remoteAddress, protocol: 'pop3' };
  }

  get maildrop(): Maildrop {
    return this.#maildrop!;
  }

  get lock(): MaildropLock {
    return this.#lock!;
  }

  /** The client has authenticated. False while another session has the maildrop. Throws KvError; then the session is as it was. */
  async enter({ accountId, login }: Principal): Promise<boolean> {
    const { mail, locks } = this.services;
    const lock = await locks.acquire(accountId).catch((error: unknown) => {
      if (!(error instanceof MaildropLockLost)) throw error;
      throw new Refusal(err('This server can not serve you now, try again later', 'SYS/TEMP'));
    });
    if (!lock) return false;
    try {
      this.#maildrop = await Maildrop.open(mail, accountId);
    } catch (error) {
      await lock.release();
      throw error;
    }
    this.#lock = lock;
    this.login = login;
    this.logger = this.logger.child({ account: accountId });
    return true;
  }

  /** Place (from 0) of the message with this number. Throws a refusal where there is none, or it is marked as deleted. */
  messageAt(word: string | undefined): number {
    const number = parseNumber(word);
    if (number === undefined) throw new Refusal(err('A message number is missing'));
    if (number === 0 || number > this.maildrop.size) throw new Refusal(err('No such message'));
    if (this.maildrop.isDeleted(number - 1)) throw new Refusal(err('That message is marked as deleted'));
    return number - 1;
  }

  /** Lets go of everything, the lock included. */
  async dispose(): Promise<void> {
    this.#maildrop?.close();
    this.#maildrop = undefined;
    await this.#lock?.release();
  }
}
