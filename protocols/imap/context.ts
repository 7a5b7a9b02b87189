/**
 * What a command works with: the session's state, its connection, and the ways to answer. One per session.
 */
import type { Logger } from '../../ops/telemetry/index.js';
import type { AccountId } from '../../store/mail/contract.js';
import { formatMailbox } from './grammar/format.js';
import { mailboxPath, separator } from './grammar/mailbox-name.js';
import type { Ranges, SequenceSet } from './grammar/sequence-set.js';
import type { Input } from './input.js';
import type { Output } from './output.js';
import { no, Refusal } from './replies.js';
import type { SelectedMailbox } from './selected.js';
import type { ImapConnection, ImapServices } from './types.js';

export type SessionState = 'not-authenticated' | 'authenticated' | 'selected' | 'logout';
export type Extension = 'IMAP4REV2' | 'UTF8=ACCEPT' | 'CONDSTORE';

export interface Account {
  id: AccountId;
  login: string;
}

/** How a command was called. */
export interface Invocation {
  tag: string;
  /** With the UID prefix. */
  byUid: boolean;
}

export class SessionContext {
  readonly connection: ImapConnection;
  readonly services: ImapServices;
  readonly input: Input;
  readonly output: Output;
  logger: Logger;
  isSecure: boolean;
  account: Account | undefined;
  selected: SelectedMailbox | undefined;
  readonly enabled = new Set<Extension>();
  isLoggingOut = false;
  isDraining = false;
  authFailures = 0;
  /** BADs since the last OK after login, or since the beginning. */
  badCommands = 0;
  /** Set by the change listener: the store has news for the account. */
  hasNotice = false;
  #unsubscribe: (() => void) | undefined;

  constructor(connection: ImapConnection, services: ImapServices, input: Input, output: Output) {
    this.connection = connection;
    this.services = services;
    this.input = input;
    this.output = output;
    this.isSecure = connection.secure;
    this.logger = services.logger;
  }

  get state(): SessionState {
    if (this.isLoggingOut) return 'logout';
    if (!this.account) return 'not-authenticated';
    return this.selected ? 'selected' : 'authenticated';
  }

  /** Mailbox names and quoted strings are UTF-8. */
  get utf8(): boolean {
    return this.enabled.has('IMAP4REV2') || this.enabled.has('UTF8=ACCEPT');
  }

  get condstore(): boolean {
    return this.enabled.has('CONDSTORE');
  }

  get accountId(): AccountId {
    return this.account!.id;
  }

  /** Where login is possible: under TLS, or wherever the operator says so. */
  get mayLogIn(): boolean {
    return this.isSecure || this.services.allowPlainAuth === true;
  }

  /** An untagged response, without `* ` and line end. */
  untagged(response: string): void {
    this.output.write(`* ${response}\r\n`);
  }

  readonly write = (line: string): void => {
    this.output.write(line);
  };

  /** The client has authenticated. */
  async enter(account: Account): Promise<void> {
    const { mail, limits } = this.services;
    await mail.ensureAccount(account.id);
    this.account = account;
    this.logger = this.logger.child({ account: account.id });
    this.input.changeLimits(limits.grammar);
    this.#unsubscribe = mail.onChange(account.id, () => {
      this.hasNotice = true;
      this.onNotice?.();
    });
  }

  /** Called on each notice; IDLE sets it. */
  onNotice: (() => void) | undefined;

  /** Path of a mailbox name as it came. */
  path(latin1: string): string[] {
    return mailboxPath(latin1, this.utf8);
  }

  mailboxText(path: readonly string[]): string {
    return formatMailbox(path.join(separator), this.utf8);
  }

  requireSelected(): SelectedMailbox {
    if (!this.selected) throw new Refusal({ status: 'BAD', text: 'No mailbox is selected' });
    return this.selected;
  }

  requireWritable(): SelectedMailbox {
    const selected = this.requireSelected();
    if (selected.isReadOnly) throw new Refusal(no('The mailbox is selected read-only', 'CANNOT'));
    return selected;
  }

  unselect(): void {
    this.selected?.close();
    this.selected = undefined;
  }

  /** Reads what is committed by now. */
  async refresh(): Promise<void> {
    this.hasNotice = false;
    try {
      await this.selected?.index.refresh();
    } catch (error) {
      this.hasNotice = true;
      throw error;
    }
  }

  /** Tells the client what the index knows. Answers whether that was anything. */
  announce(expunges: boolean): boolean {
    return this.selected?.announce(this.write, { expunges, modseqs: this.condstore }) ?? false;
  }

  /** Refresh, and tell the client about everything but expunges: what a command then names is what is there now. */
  async refreshView(): Promise<void> {
    await this.refresh();
    this.announce(false);
  }

  /**
   * UIDs that a set names. With sequence numbers, one beyond the announced messages is the client's mistake (RFC 9051 6.4.5 and section 9:
   * seq-number).
   */
  resolve(set: SequenceSet, byUid: boolean): readonly number[] {
    return this.#checked(set, byUid).resolve(set, byUid);
  }

  /** The same as ranges of UIDs: see `SelectedMailbox.rangesOf`. */
  resolveRanges(set: SequenceSet, byUid: boolean): Ranges {
    return this.#checked(set, byUid).rangesOf(set, byUid);
  }

  #checked(set: SequenceSet, byUid: boolean): SelectedMailbox {
    const selected = this.requireSelected();
    if (!byUid && set.kind === 'ranges') {
      const count = selected.uids.length;
      // `1:*` in an empty mailbox is written by many clients, and harmless.
      if (count > 0 && set.ends.some((end) => end > count))
        throw new Refusal({ status: 'BAD', text: 'No message has that number' });
    }
    return selected;
  }

  quotaLimitBytes(): Promise<number | undefined> {
    return this.services.accounts.quotaLimitBytes(this.accountId);
  }

  /** Lets go of everything. */
  dispose(): void {
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    this.onNotice = undefined;
    this.unselect();
  }
}

/** Lets timers and sockets of others have a turn. */
export function yieldEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
