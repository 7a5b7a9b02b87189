/**
 * What a client has asked to hear of with NOTIFY (RFC 5465), and the telling of it: for the selected mailbox the session's announcements, as this says; for other
 * mailboxes STATUS and LIST responses, found in the change logs of the accounts that hold them.
 */
import type { AccountId, Change, ChangeSet, MailboxId } from '../../store/mail/contract.js';
import { AnnotationWatch } from './annotation-watch.js';
import { FetchRun } from './commands/fetch-run.js';
import { listLine } from './commands/list.js';
import { formatStatus } from './commands/status.js';
import type { Notifications, SessionContext } from './context.js';
import type { FetchRequest } from './grammar/fetch-items.js';
import { separator } from './grammar/mailbox-name.js';
import { lowerBound } from './grammar/sequence-set.js';
import { readNodes } from './listing.js';
import type { MailboxPlace } from './places.js';
import { no, Refusal } from './replies.js';
import type { SelectedMailbox } from './selected.js';

/** Upper case. AnnotationChange is not among them: there are no annotations of messages. */
export type NotifyEvent =
  | 'MESSAGENEW'
  | 'MESSAGEEXPUNGE'
  | 'FLAGCHANGE'
  | 'MAILBOXNAME'
  | 'SUBSCRIPTIONCHANGE'
  | 'MAILBOXMETADATACHANGE'
  | 'SERVERMETADATACHANGE';

export interface EventGroup {
  filter: 'personal' | 'subscribed' | 'subtree' | 'mailboxes';
  /** Of `subtree` and `mailboxes`: names as `nameOf` writes them. */
  names: readonly string[];
  events: ReadonlySet<NotifyEvent>;
}

export interface NotifyRequest {
  /** Absent: no message events of the selected mailbox. */
  selected?: {
    /** Expunges wait for a command that may tell them (6.1.2). */
    isDelayed: boolean;
    flags: boolean;
    /** What is told of each new message. */
    fetch?: FetchRequest;
  };
  groups: readonly EventGroup[];
}

/** What happened to the messages of one mailbox. */
interface Happened {
  messages: boolean;
  flags: boolean;
}

interface WatchedAccount {
  /** Everything up to this modseq has been told. */
  modseq: number;
  unsubscribe: (() => void) | undefined;
  /** Of messages that this client has itself added or removed since then; see `messageKey`. */
  ownChanges: Set<string>;
}

/** What the client has been told of a name. */
interface KnownMailbox {
  place: MailboxPlace;
  isSubscribed: boolean;
  hasChildren: boolean;
}

/** Accounts whose mailboxes one session follows. */
const maxAccounts = 200;
const setsPerRead = 500;
const everything = { patterns: ['*'], onlySubscribed: false, onlySpecialUse: false };

export function nameOf(path: readonly string[]): string {
  return path.join(separator);
}

export class Notifier implements Notifications {
  readonly #context: SessionContext;
  #request: NotifyRequest;
  readonly #accounts = new Map<AccountId, WatchedAccount>();
  /** All mailboxes that the user may know of, by account and id, as the client has been told of them. */
  #known = new Map<string, KnownMailbox>();
  readonly #annotations: AnnotationWatch;
  /** Names of mailboxes that this client itself has changed since the last look. */
  #ownNames = new Set<string>();

  constructor(context: SessionContext, request: NotifyRequest) {
    this.#context = context;
    this.#request = request;
    this.#annotations = new AnnotationWatch(context);
  }

  /** Of the selected mailbox, what must not be told; undefined where all may be. */
  get unwanted(): { arrivals: boolean; flags: boolean } | undefined {
    const { selected } = this.#request;
    if (selected?.flags) return undefined;
    return { arrivals: !selected, flags: true };
  }

  /** Whether expunges in the selected mailbox are told at any time. */
  get tellsExpungesAtOnce(): boolean {
    return this.#request.selected !== undefined && !this.#request.selected.isDelayed;
  }

  /** Whether there is anything to listen for between commands. */
  get isListening(): boolean {
    return this.#request.selected !== undefined || this.#request.groups.length > 0;
  }

  /** Begins to follow; answers the mailboxes whose message events are wanted, the selected one apart. Throws a refusal for what is too much. */
  async open(): Promise<MailboxPlace[]> {
    if (this.#request.groups.length === 0) return [];
    // The logs are followed from before the mailboxes are read, so that nothing falls between the two.
    await this.#watch(this.#context.accountId);
    let known = await this.#mailboxes();
    if (await this.#watchAll(known)) known = await this.#mailboxes();
    if (this.#accounts.size > maxAccounts) throw new Refusal(no('Mailboxes of too many accounts', 'NOTIFICATIONOVERFLOW'));
    this.#known = known;
    for (const one of known.values()) if (this.#wants(one, 'MAILBOXMETADATACHANGE')) await this.#annotations.changed(one.place);
    if (this.#wantsServer) await this.#annotations.changed(undefined);
    this.#tellNoAccess(known);
    return [...known.values()]
      .filter((one) => !this.#isSelected(one.place) && this.#wants(one, 'MESSAGENEW'))
      .map(({ place }) => place);
  }

  get #wantsServer(): boolean {
    return this.#request.groups.some(({ events }) => events.has('SERVERMETADATACHANGE'));
  }

  /** 3.1: of what may be looked up and not read, the client is told that it will hear nothing. */
  #tellNoAccess(known: ReadonlyMap<string, KnownMailbox>): void {
    for (const one of known.values()) {
      if (one.place.rights.has('r') || !this.#request.groups.some((group) => this.#matches(group, one))) continue;
      this.#context.untagged(`LIST (\\NoAccess) "${separator}" ${this.#context.mailboxText(one.place.path)}`);
    }
  }

  close(): void {
    for (const { unsubscribe } of this.#accounts.values()) unsubscribe?.();
    this.#accounts.clear();
  }

  /** The client changes these mailboxes itself and needs no notification of it (section 5). */
  passOver(paths: readonly (readonly string[])[]): void {
    // The parents are affected by it as well (5.4).
    this.#ownNames = new Set(paths.flatMap((path) => (path.length > 1 ? [path, path.slice(0, -1)] : [path])).map(nameOf));
  }

  /** The same of messages in mailboxes that are not selected. */
  passOverMessages(accountId: AccountId, mailboxId: MailboxId, kind: Change['kind'], uids: readonly number[]): void {
    const account = this.#accounts.get(accountId);
    for (const uid of uids) account?.ownChanges.add(messageKey(kind, mailboxId, uid));
  }

  /** FETCH responses for what has been announced since `before` was the client's list. Answers whether there was anything. */
  async tellArrivals(selected: SelectedMailbox, before: ArrayLike<number>): Promise<boolean> {
    const { selected: wanted } = this.#request;
    if (!wanted?.fetch || this.#context.selected !== selected) return false;
    const { uids } = selected;
    const first = lowerBound(uids, (before[before.length - 1] ?? 0) + 1);
    const arrived = uids.subarray(first).filter((uid) => !selected.isOwn(uid));
    if (arrived.length === 0) return false;
    await new FetchRun(this.#context, selected, wanted.fetch).all(arrived);
    return true;
  }

  /** STATUS, LIST and METADATA responses for what has happened elsewhere. Throws what the store throws; nothing is lost then. */
  async tellOthers(): Promise<boolean> {
    let hasTold = false;
    for (const [accountId, account] of [...this.#accounts]) if (await this.#tellAccount(accountId, account)) hasTold = true;
    if (await this.#tellServer()) hasTold = true;
    this.#ownNames.clear();
    if (this.#accounts.size <= maxAccounts) return hasTold;
    // 5.8: as if NOTIFY NONE had come.
    this.close();
    this.#request = { groups: [] };
    this.#context.untagged('OK [NOTIFICATIONOVERFLOW] Mailboxes of too many accounts: nothing is told any more');
    return true;
  }

  async #watch(accountId: AccountId): Promise<void> {
    if (this.#accounts.has(accountId)) return;
    const { mail } = this.#context.services;
    const isOwn = accountId === this.#context.accountId;
    // Notices of the own account come anyway.
    const unsubscribe = isOwn ? undefined : mail.onChange(accountId, this.#context.notice);
    const watched: WatchedAccount = { modseq: 0, unsubscribe, ownChanges: new Set() };
    this.#accounts.set(accountId, watched);
    watched.modseq = (await mail.usage(accountId)).modseq;
  }

  /** Answers whether there was a new account among them. */
  async #watchAll(known: ReadonlyMap<string, KnownMailbox>): Promise<boolean> {
    const before = this.#accounts.size;
    for (const { place } of known.values()) if (this.#accounts.size <= maxAccounts) await this.#watch(place.accountId);
    return this.#accounts.size > before;
  }

  async #mailboxes(): Promise<Map<string, KnownMailbox>> {
    const known = new Map<string, KnownMailbox>();
    for (const { place, isSubscribed, hasChildren } of await readNodes(this.#context, everything))
      if (place?.rights.has('l')) known.set(`${place.accountId}/${place.mailbox.id}`, { place, isSubscribed, hasChildren });
    return known;
  }

  async #tellAccount(accountId: AccountId, account: WatchedAccount): Promise<boolean> {
    const { mail } = this.#context.services;
    const happened = new Map<MailboxId, Happened>();
    const updated = new Set<MailboxId>();
    let treeChanged = false;
    let { modseq } = account;
    for (;;) {
      const part = await mail.changesSince(accountId, modseq, setsPerRead);
      if (!part) {
        // The log was cut off: whatever is there may have changed.
        modseq = (await mail.usage(accountId)).modseq;
        treeChanged = true;
        for (const { place } of this.#known.values()) {
          if (place.accountId !== accountId) continue;
          happened.set(place.mailbox.id, { messages: true, flags: true });
          updated.add(place.mailbox.id);
        }
        break;
      }
      for (const set of part.sets) if (gather(set, happened, updated, account.ownChanges)) treeChanged = true;
      modseq = part.upToModseq;
      if (!part.hasMore) break;
    }
    if (!treeChanged) treeChanged = await this.#hasLostRights(accountId, happened.keys());
    let hasTold = false;
    if (treeChanged && (await this.#tellTree())) hasTold = true;
    for (const mailboxId of updated) if (await this.#tellAnnotations(accountId, mailboxId)) hasTold = true;
    for (const [mailboxId, what] of happened) if (await this.#tellMessages(accountId, mailboxId, what)) hasTold = true;
    account.modseq = modseq;
    account.ownChanges.clear();
    return hasTold;
  }

  /** Whether any of these mailboxes may not be read any more. Lists are told of in their owner's log; that this user has left a group is told in none. */
  async #hasLostRights(accountId: AccountId, mailboxIds: Iterable<MailboxId>): Promise<boolean> {
    const { accountId: ownId, shared } = this.#context;
    if (accountId === ownId) return false;
    for (const mailboxId of mailboxIds) {
      if (!this.#known.get(`${accountId}/${mailboxId}`)?.place.rights.has('r')) continue;
      const rights = await shared?.rightsOf(accountId, mailboxId);
      if (!rights?.has('l') || !rights.has('r')) return true;
    }
    return false;
  }

  async #tellMessages(accountId: AccountId, mailboxId: MailboxId, { messages, flags }: Happened): Promise<boolean> {
    const known = this.#known.get(`${accountId}/${mailboxId}`);
    if (!known || this.#isSelected(known.place)) return false;
    const wantsMessages = messages && this.#wants(known, 'MESSAGENEW');
    if (!wantsMessages && !(flags && this.#wants(known, 'FLAGCHANGE'))) return false;
    const found = await this.#context.services.mail.mailboxById(accountId, mailboxId);
    if (!found) return false;
    const items = statusItems(this.#context, wantsMessages);
    this.#context.untagged(await formatStatus(this.#context, { ...known.place, counts: found.counts }, items));
    return true;
  }

  /** 5.6: the names of the entries that were changed, added or removed. */
  async #tellAnnotations(accountId: AccountId, mailboxId: MailboxId): Promise<boolean> {
    const known = this.#known.get(`${accountId}/${mailboxId}`);
    if (!known || !this.#wants(known, 'MAILBOXMETADATACHANGE')) return false;
    const changed = await this.#annotations.changed(known.place);
    if (changed.length === 0 || this.#ownNames.has(nameOf(known.place.path))) return false;
    this.#context.untagged(`METADATA ${this.#context.mailboxText(known.place.path)} ${changed.join(' ')}`);
    return true;
  }

  async #tellServer(): Promise<boolean> {
    if (!this.#wantsServer) return false;
    const changed = await this.#annotations.changed(undefined);
    if (changed.length === 0 || this.#ownNames.has('')) return false;
    this.#context.untagged(`METADATA "" ${changed.join(' ')}`);
    return true;
  }

  /** What has become of the mailboxes' names and subscriptions (5.4, 5.5). Rights that come and go are mailboxes that do. */
  async #tellTree(): Promise<boolean> {
    const before = this.#known;
    const after = await this.#mailboxes();
    await this.#watchAll(after);
    this.#known = after;
    const lines = new Map<string, string>();
    const add = (one: KnownMailbox, event: NotifyEvent, extended = '', alsoMatching = one) => {
      const name = nameOf(one.place.path);
      if ((!this.#wants(one, event) && !this.#wants(alsoMatching, event)) || this.#ownNames.has(name)) return;
      if (extended !== '' || !lines.has(name)) lines.set(name, this.#listLine(one) + extended);
    };
    // 5.4: with a mailbox that comes or goes its parent is affected, whose attributes change.
    const addParent = ({ place }: KnownMailbox) => {
      const parent = after.get(`${place.accountId}/${place.mailbox.parentId}`);
      if (parent) add(parent, 'MAILBOXNAME');
    };
    for (const [key, one] of after) {
      const old = before.get(key);
      if (!old) {
        add(one, 'MAILBOXNAME');
        addParent(one);
        continue;
      }
      // Only the topmost of what was renamed: a child whose own name and parent are the same has only moved along.
      const { mailbox } = one.place;
      const isRenamed = old.place.mailbox.name !== mailbox.name || old.place.mailbox.parentId !== mailbox.parentId;
      if (isRenamed) add(one, 'MAILBOXNAME', ` ("OLDNAME" (${this.#context.mailboxText(old.place.path)}))`, old);
      if (old.isSubscribed !== one.isSubscribed) add(one, 'SUBSCRIPTIONCHANGE');
    }
    for (const [key, one] of before) {
      if (after.has(key)) continue;
      const name = nameOf(one.place.path);
      if (this.#wants(one, 'MAILBOXNAME') && !this.#ownNames.has(name) && !lines.has(name))
        lines.set(name, `LIST (\\NonExistent) "${separator}" ${this.#context.mailboxText(one.place.path)}`);
      addParent(one);
    }
    for (const line of lines.values()) this.#context.untagged(line);
    return lines.size > 0;
  }

  #listLine({ place, isSubscribed, hasChildren }: KnownMailbox): string {
    return listLine(this.#context, { ...place, mailbox: { ...place.mailbox, isSubscribed } }, hasChildren);
  }

  #isSelected({ accountId, mailbox }: MailboxPlace): boolean {
    const { selected } = this.#context;
    return selected?.accountId === accountId && selected.mailbox.id === mailbox.id;
  }

  #wants(one: KnownMailbox, event: NotifyEvent): boolean {
    // Section 5: what is not listed and read is not heard of.
    if (!one.place.rights.has('r')) return false;
    return this.#request.groups.some((group) => group.events.has(event) && this.#matches(group, one));
  }

  #matches({ filter, names }: EventGroup, { place, isSubscribed }: KnownMailbox): boolean {
    if (filter === 'personal') return place.accountId === this.#context.accountId;
    if (filter === 'subscribed') return isSubscribed;
    const name = nameOf(place.path);
    return names.some((one) => one === name || (filter === 'subtree' && name.startsWith(`${one}${separator}`)));
  }
}

/** RFC 5465 5.1 to 5.3. `modseq`: also for a client that has not asked for CONDSTORE otherwise. */
export function statusItems(context: SessionContext, messages: boolean, modseq = context.condstore): string[] {
  const items = messages ? ['MESSAGES', 'UIDNEXT', 'UIDVALIDITY', 'UNSEEN'] : ['UIDVALIDITY', 'UNSEEN'];
  return modseq ? [...items, 'HIGHESTMODSEQ'] : items;
}

function messageKey(kind: Change['kind'], mailboxId: MailboxId, uid: number): string {
  return `${kind} ${mailboxId} ${uid}`;
}

function happenedIn(happened: Map<MailboxId, Happened>, mailboxId: MailboxId): Happened {
  let what = happened.get(mailboxId);
  if (!what) {
    what = { messages: false, flags: false };
    happened.set(mailboxId, what);
  }
  return what;
}

/** Adds what a set says of messages, but for the client's own changes (section 5), and of updated mailboxes; answers whether mailboxes themselves have changed. */
function gather(
  { changes }: ChangeSet,
  happened: Map<MailboxId, Happened>,
  updated: Set<MailboxId>,
  own: ReadonlySet<string>,
): boolean {
  let treeChanged = false;
  for (const change of changes) {
    if (!('mailboxId' in change)) continue;
    if (change.kind === 'mailbox-created' || change.kind === 'mailbox-updated' || change.kind === 'mailbox-destroyed') {
      if (change.kind === 'mailbox-updated') updated.add(change.mailboxId);
      treeChanged = true;
    }
    if (change.kind === 'flags-changed') {
      // A client changes flags in the mailbox that it has selected, which is not told of here.
      happenedIn(happened, change.mailboxId).flags = true;
      continue;
    }
    if (!('uid' in change || 'entry' in change)) continue;
    const uid = 'uid' in change ? change.uid : change.entry.uid;
    if (own.size > 0 && own.has(messageKey(change.kind, change.mailboxId, uid))) continue;
    const what = happenedIn(happened, change.mailboxId);
    if (change.kind === 'entry-changed') what.flags = true;
    else what.messages = true;
  }
  return treeChanged;
}
