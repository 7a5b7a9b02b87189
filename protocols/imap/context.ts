/**
 * What a command works with: the session's state, its connection, and the ways to answer. One per session.
 */
import type { Logger } from '../../ops/telemetry/index.js';
import type { AccountId, Change, MailboxId, UidList } from '../../store/mail/contract.js';
import { formatMailbox } from './grammar/format.js';
import { mailboxPath, separator } from './grammar/mailbox-name.js';
import type { Ranges, SequenceSet } from './grammar/sequence-set.js';
import type { Input } from './input.js';
import { ConnectionClosed, type Output } from './output.js';
import { type MailboxPlace, ownPlace } from './places.js';
import { no, Refusal, uidRequired } from './replies.js';
import type { AnnounceOptions, SelectedMailbox } from './selected.js';
import { SharedPlaces } from './shared-places.js';
import type { ImapConnection, ImapServices } from './types.js';

/** Between two INPROGRESS responses of one command (RFC 9585 section 4: no more often than every 10 seconds, and before clients give up). */
const progressIntervalMs = 10_000;

export type SessionState = 'not-authenticated' | 'authenticated' | 'selected' | 'logout';
export type Extension = 'IMAP4REV2' | 'UTF8=ACCEPT' | 'CONDSTORE' | 'QRESYNC' | 'UIDONLY';

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

/** What NOTIFY has set up (`notifier.ts`). */
export interface Notifications {
  /** Of the selected mailbox, what must not be told; undefined where all may be. */
  readonly unwanted: { arrivals: boolean; flags: boolean } | undefined;
  /** Expunges in the selected mailbox are told at any time, commands or not. */
  readonly tellsExpungesAtOnce: boolean;
  /** There is something to listen for between commands. */
  readonly isListening: boolean;
  passOver(paths: readonly (readonly string[])[]): void;
  passOverMessages(accountId: AccountId, mailboxId: MailboxId, kind: Change['kind'], uids: readonly number[]): void;
  tellArrivals(selected: SelectedMailbox, before: ArrayLike<number>): Promise<boolean>;
  tellOthers(): Promise<boolean>;
  close(): void;
}

/** Searches whose changes the client wants to hear of (`search/updates.ts`). */
export interface SearchFollowing {
  /** Of which mailbox. */
  readonly selected: SelectedMailbox;
  /** Just before expunged messages lose their numbers. */
  beforeExpunges(): boolean;
  /** After the announcement of what has changed. */
  tellChanges(): Promise<boolean>;
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
  /** Mailboxes of others; undefined before login, and where nothing is shared. */
  shared: SharedPlaces | undefined;
  readonly enabled = new Set<Extension>();
  isLoggingOut = false;
  isDraining = false;
  authFailures = 0;
  /** Since when (monotonic) nobody is logged in. */
  anonymousSinceMs: number;
  /** The bytes on the wire are compressed (RFC 4978). */
  isCompressed = false;
  /** BADs since the last OK after login, or since the beginning. */
  badCommands = 0;
  /** Set by the change listener: the store has news for the account. */
  hasNotice = false;
  /** The same for what NOTIFY tells besides the selected mailbox. */
  hasOtherNotice = false;
  /** What the client has asked to hear of with NOTIFY; undefined until it has used that. */
  notifier: Notifications | undefined;
  /** Undefined until a search is to be followed. */
  following: SearchFollowing | undefined;
  #unsubscribe: (() => void) | undefined;
  #unsubscribeSelected: (() => void) | undefined;
  #leavePlace: (() => void) | undefined;
  /** The command that runs has named messages by number. */
  usesNumbers = false;
  #tag = '';
  #progressDueMs = 0;

  constructor(connection: ImapConnection, services: ImapServices, input: Input, output: Output) {
    this.connection = connection;
    this.services = services;
    this.input = input;
    this.output = output;
    this.isSecure = connection.secure;
    this.logger = services.logger;
    this.anonymousSinceMs = services.clock.monotonicMs();
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

  /** VANISHED instead of EXPUNGE (RFC 7162 3.2.10). */
  get qresync(): boolean {
    return this.enabled.has('QRESYNC');
  }

  /** No message numbers, in neither direction (RFC 9586). */
  get uidOnly(): boolean {
    return this.enabled.has('UIDONLY');
  }

  /** The beginning of a FETCH response about an announced message, up to its opening parenthesis (RFC 9586 3.3: UIDFETCH). */
  fetchHead(uid: number, sequence = this.selected?.sequenceOf(uid) ?? 0): string {
    return this.enabled.has('UIDONLY') ? `* ${uid} UIDFETCH (` : `* ${sequence} FETCH (`;
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

  /** A command begins: `progress` speaks for it. */
  begin(tag: string): void {
    this.#tag = tag;
    this.usesNumbers = false;
    this.#progressDueMs = this.services.clock.monotonicMs() + progressIntervalMs;
  }

  /**
   * Tells the client now and then that a long command is still at work (RFC 9585). Cheap: to be called as often as the event loop is given a turn, never in
   * the middle of a response. `done` and `total` count in the same unit, messages as a rule; without them only that it goes on is told.
   */
  progress(done?: number, total?: number): void {
    const nowMs = this.services.clock.monotonicMs();
    if (nowMs < this.#progressDueMs) return;
    this.#progressDueMs = nowMs + progressIntervalMs;
    const tag = this.#tag === '' || this.#tag === '*' ? 'NIL' : `"${this.#tag}"`;
    this.untagged(`OK [INPROGRESS (${tag} ${done ?? 'NIL'} ${total ? Math.max(total, done ?? 0) : 'NIL'})] Still at work`);
    this.output.flush();
  }

  /** The client has authenticated. Throws a refusal when the user has too many connections, and KvError; then nobody is logged in. */
  async enter(account: Account): Promise<void> {
    const { mail, limits, admitConnection } = this.services;
    const leavePlace = await admitConnection?.(account.id);
    if (admitConnection && !leavePlace) throw new Refusal(no('Too many connections of this user', 'LIMIT'));
    try {
      await mail.ensureAccount(account.id);
    } catch (error) {
      leavePlace?.();
      throw error;
    }
    this.#leavePlace = leavePlace;
    this.account = account;
    this.logger = this.logger.child({ account: account.id });
    this.input.changeLimits(limits.grammar);
    this.#unsubscribe = mail.onChange(account.id, this.notice);
    const { sharing } = this.services;
    this.shared = sharing && new SharedPlaces(mail, sharing, account.id);
  }

  /** Something has changed in an account that this session looks at. */
  readonly notice = (): void => {
    this.hasNotice = true;
    this.hasOtherNotice = true;
    this.onNotice?.();
  };

  /** Called on each notice; IDLE and NOTIFY set it. */
  onNotice: (() => void) | undefined;

  readonly wake = (): void => this.input.wake();

  /** Path of a mailbox name as it came. */
  path(latin1: string): string[] {
    return mailboxPath(latin1, this.utf8);
  }

  /**
   * The mailbox of this name as this user sees it; undefined where there is none, or none where anything is allowed. It may still be one that the user must
   * not know of: `requirePlace` and `requireRights` see to that.
   */
  async find(path: readonly string[]): Promise<MailboxPlace | undefined> {
    const found = await this.services.mail.mailboxByPath(this.accountId, path);
    if (found) return ownPlace(this.accountId, found);
    return this.shared?.isOutside(path) ? this.shared.find(path) : undefined;
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

  /** The mailbox is selected from here on. */
  select(selected: SelectedMailbox): void {
    this.selected = selected;
    // News of the own account are heard of anyway.
    if (selected.accountId !== this.accountId)
      this.#unsubscribeSelected = this.services.mail.onChange(selected.accountId, this.notice);
  }

  unselect(): void {
    this.#unsubscribeSelected?.();
    this.#unsubscribeSelected = undefined;
    this.selected?.close();
    this.selected = undefined;
    this.following = undefined;
  }

  /**
   * The modseq from which the client may go on when it comes back (RFC 7162 3.2): of the mailbox, and never above what this client knows of. Undefined when the
   * mailbox is gone.
   */
  async reachedModseq(selected: SelectedMailbox): Promise<number | undefined> {
    const found = await this.services.mail.mailboxById(selected.accountId, selected.mailbox.id);
    return found && Math.max(1, Math.min(found.counts.highestModseq, selected.completeModseq));
  }

  /** Reads what is committed by now. */
  async refresh(): Promise<void> {
    this.hasNotice = false;
    try {
      await this.#refreshRights();
      await this.selected?.index.refresh();
    } catch (error) {
      this.hasNotice = true;
      throw error;
    }
  }

  /**
   * What may be done in a selected mailbox of somebody else may change at any time. Without the right to read it the connection ends: there is no other way to
   * take a selected mailbox away that all clients understand, and when they come back they find it gone.
   */
  async #refreshRights(): Promise<void> {
    const { selected, shared } = this;
    if (!selected || !this.account || selected.accountId === this.accountId) return;
    const rights = await shared?.rightsOf(selected.accountId, selected.mailbox.id);
    if (rights?.has('r')) {
      selected.place.rights = rights;
      return;
    }
    this.untagged('BYE The selected mailbox is no longer shared with you');
    this.isLoggingOut = true;
    throw new ConnectionClosed();
  }

  /** The client has itself put messages into a mailbox: they are no news to it. */
  markOwn(accountId: AccountId, mailboxId: MailboxId, uids: readonly number[]): void {
    const { selected } = this;
    if (selected?.accountId === accountId && selected.mailbox.id === mailboxId) selected.markOwn(uids);
    this.notifier?.passOverMessages(accountId, mailboxId, 'entry-added', uids);
  }

  /** Tells the client what the index knows. Answers whether that was anything. */
  announce(expunges: boolean, options?: Pick<AnnounceOptions, 'holdsFlags'> & { ownRemovals?: boolean }): boolean {
    const { selected } = this;
    if (!selected) return false;
    const { condstore, uidOnly } = this;
    const without = this.notifier?.unwanted;
    const mayExpunge = expunges && (!without?.arrivals || options?.ownRemovals === true);
    if (mayExpunge) this.following?.beforeExpunges();
    return selected.announce(this.write, {
      expunges: mayExpunge,
      without,
      modseqs: condstore,
      vanished: uidOnly || this.qresync,
      uidOnly,
      ...(options?.holdsFlags ? { holdsFlags: true } : {}),
    });
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
  resolve(set: SequenceSet, byUid: boolean): UidList {
    return this.#checked(set, byUid).resolve(set, byUid);
  }

  /** The same as ranges of UIDs: see `SelectedMailbox.rangesOf`. */
  resolveRanges(set: SequenceSet, byUid: boolean): Ranges {
    return this.#checked(set, byUid).rangesOf(set, byUid);
  }

  #checked(set: SequenceSet, byUid: boolean): SelectedMailbox {
    const selected = this.requireSelected();
    if (!byUid && set.kind === 'ranges' && this.uidOnly) throw new Refusal(uidRequired);
    if (!byUid && set.kind === 'ranges') {
      this.usesNumbers = true;
      const count = selected.uids.length;
      // `1:*` in an empty mailbox is written by many clients, and harmless.
      if (count > 0 && set.ends.some((end) => end > count))
        throw new Refusal({ status: 'BAD', text: 'No message has that number' });
    }
    return selected;
  }

  /** Of whoever holds the mailbox that grows. */
  quotaLimitBytes(accountId: AccountId): Promise<number | undefined> {
    return this.services.accounts.quotaLimitBytes(accountId);
  }

  /** UNAUTHENTICATE (RFC 8437): as if nobody had ever logged in. What lies under the protocol, TLS and compression, stays. */
  leave(): void {
    this.dispose();
    this.account = undefined;
    this.shared = undefined;
    this.enabled.clear();
    this.hasNotice = this.hasOtherNotice = false;
    this.logger = this.services.logger;
    this.input.changeLimits(this.services.limits.preAuthGrammar);
    this.anonymousSinceMs = this.services.clock.monotonicMs();
  }

  /** Lets go of everything. */
  dispose(): void {
    this.#leavePlace?.();
    this.#leavePlace = undefined;
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    this.onNotice = undefined;
    this.notifier?.close();
    this.notifier = undefined;
    this.unselect();
  }
}

/** Lets timers and sockets of others have a turn. */
export function yieldEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
