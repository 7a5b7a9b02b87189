/**
 * The mailboxes of others as one user sees them: `Other Users/<address>/…` for people's mailboxes that were shared with the user, `Shared Folders/<address>/…`
 * for those of groups that the user belongs to (whose members have all rights there). Rights are read from the store whenever they are asked for, so that a
 * change holds from the next command on.
 */
import { effectiveRights, identifiersOf } from '../../store/mail/acl.js';
import {
  type AccountId,
  granteeEveryone,
  type Mailbox,
  type MailboxCounts,
  type MailboxOf,
  type MailStore,
  type Right,
} from '../../store/mail/contract.js';
import { type MailboxPlace, ownersRights } from './places.js';
import type { ImapPrincipal, ImapSharing } from './types.js';

/** From how many mailboxes of one owner the whole tree is read instead of each. */
const readsTreeFrom = 16;

interface Who {
  groupIds: ReadonlySet<AccountId>;
  identifiers: ReadonlySet<string>;
  /** Under which names grants are noted. */
  grantees: string[];
}

/** Where a new mailbox would come to stand. */
export interface NewPlace {
  accountId: AccountId;
  /** In the tree of that account. */
  path: string[];
  /** On the nearest mailbox above it. */
  rights: ReadonlySet<Right>;
}

export class SharedPlaces {
  readonly #mail: MailStore;
  readonly #sharing: ImapSharing;
  readonly #accountId: AccountId;

  constructor(mail: MailStore, sharing: ImapSharing, accountId: AccountId) {
    this.#mail = mail;
    this.#sharing = sharing;
    this.#accountId = accountId;
  }

  /** Whether a name lies in the part of the tree that shows other people's mailboxes. */
  isOutside(path: readonly string[]): boolean {
    return path[0] === this.#sharing.otherUsers || path[0] === this.#sharing.groups;
  }

  async find(path: readonly string[]): Promise<MailboxPlace | undefined> {
    const owner = await this.#ownerOf(path);
    if (!owner || path.length < 3) return undefined;
    const found = await this.#mail.mailboxByPath(owner.id, path.slice(2));
    if (!found) return undefined;
    const rights = await this.rightsOf(owner.id, found.mailbox.id);
    return rights.size === 0 ? undefined : this.#place(owner, found, rights);
  }

  /** Empty where nothing is allowed, or nothing is there. */
  async rightsOf(accountId: AccountId, mailboxId: string): Promise<ReadonlySet<Right>> {
    const who = await this.#who();
    if (who.groupIds.has(accountId)) return ownersRights;
    const [acl] = await this.#mail.sharing.acls(accountId, [mailboxId]);
    return effectiveRights(acl!, who.identifiers);
  }

  /** For CREATE and RENAME; undefined where nobody has such mailboxes, or none that this user knows of. */
  async newPlace(path: readonly string[]): Promise<NewPlace | undefined> {
    const owner = await this.#ownerOf(path);
    if (!owner || path.length < 3) return undefined;
    const inner = path.slice(2);
    for (let depth = inner.length - 1; depth > 0; depth--) {
      const above = await this.#mail.mailboxByPath(owner.id, inner.slice(0, depth));
      if (!above) continue;
      const rights = await this.rightsOf(owner.id, above.mailbox.id);
      return rights.size === 0 ? undefined : { accountId: owner.id, path: inner, rights };
    }
    // At the top of somebody's tree only those can make a mailbox whose tree it is.
    const { groupIds } = await this.#who();
    return groupIds.has(owner.id) ? { accountId: owner.id, path: inner, rights: ownersRights } : undefined;
  }

  /** All mailboxes of others that this user may look up, in order. */
  async visible(): Promise<MailboxPlace[]> {
    const who = await this.#who();
    const byOwner = new Map<AccountId, string[]>();
    for (const { accountId, mailboxId } of await this.#mail.sharing.grants(who.grantees)) {
      if (accountId === this.#accountId || who.groupIds.has(accountId)) continue;
      const ids = byOwner.get(accountId);
      if (ids) ids.push(mailboxId);
      else byOwner.set(accountId, [mailboxId]);
    }
    const places: MailboxPlace[] = [];
    for (const [ownerId, ids] of byOwner) {
      const owner = await this.#sharing.directory.byId(ownerId);
      if (owner) places.push(...(await this.#granted(owner, ids, who)));
    }
    for (const groupId of who.groupIds) {
      const group = await this.#sharing.directory.byId(groupId);
      if (!group) continue;
      for (const found of await this.#mail.mailboxes(groupId)) places.push(this.#place(group, found, ownersRights));
    }
    return places.sort(byPath);
  }

  async #granted(owner: ImapPrincipal, ids: readonly string[], who: Who): Promise<MailboxPlace[]> {
    const found = await this.#mailboxesOf(owner.id, ids);
    for (const mailboxId of ids) if (!found.has(mailboxId)) await this.#forget({ accountId: owner.id, mailboxId }, who);
    const present = [...found.values()];
    const acls = await this.#mail.sharing.acls(
      owner.id,
      present.map(({ mailbox }) => mailbox.id),
    );
    const places: MailboxPlace[] = [];
    present.forEach((one, at) => {
      const rights = effectiveRights(acls[at]!, who.identifiers);
      if (rights.has('l')) places.push(this.#place(owner, one, rights));
    });
    return places;
  }

  async #mailboxesOf(ownerId: AccountId, ids: readonly string[]) {
    const found = new Map<string, { mailbox: Mailbox; counts: MailboxCounts }>();
    const wanted = new Set(ids);
    const all =
      ids.length >= readsTreeFrom
        ? (await this.#mail.mailboxes(ownerId)).filter(({ mailbox }) => wanted.has(mailbox.id))
        : await Promise.all(ids.map((id) => this.#mail.mailboxById(ownerId, id)));
    for (const one of all) if (one) found.set(one.mailbox.id, one);
    return found;
  }

  /** A note of a mailbox that is gone; that it stays for now does no harm. */
  async #forget(grant: MailboxOf, who: Who): Promise<void> {
    await this.#mail.sharing.forgetIfGone(who.grantees, grant).catch(() => {});
  }

  async #who(): Promise<Who> {
    const groups = await this.#sharing.directory.groupsOf(this.#accountId);
    const ids = groups.map(({ id }) => id);
    return {
      groupIds: new Set(ids),
      identifiers: identifiersOf(this.#accountId, ids),
      grantees: [this.#accountId, ...ids, granteeEveryone],
    };
  }

  /** Whose mailboxes a name is about; undefined for one's own, however it is written. */
  async #ownerOf(path: readonly string[]): Promise<ImapPrincipal | undefined> {
    const [root, name] = path;
    if (!this.isOutside(path) || name === undefined) return undefined;
    const { directory, otherUsers } = this.#sharing;
    const owner = await (name.includes('@') ? directory.byAddress(name) : directory.byId(name));
    if (!owner || owner.id === this.#accountId) return undefined;
    return owner.kind === (root === otherUsers ? 'account' : 'group') ? owner : undefined;
  }

  #place(
    owner: ImapPrincipal,
    { mailbox, counts }: { mailbox: Mailbox; counts: MailboxCounts },
    rights: ReadonlySet<Right>,
  ): MailboxPlace {
    const root = owner.kind === 'group' ? this.#sharing.groups : this.#sharing.otherUsers;
    return { accountId: owner.id, mailbox, counts, path: [root, ownerName(owner), ...mailbox.path], rights };
  }
}

/** As one part of a mailbox name. RFC 5322 allows `/` in an address; such an owner is known by its id. */
function ownerName({ id, address }: ImapPrincipal): string {
  return address.includes('/') ? id : address;
}

function byPath(one: MailboxPlace, other: MailboxPlace): number {
  const [a, b] = [one.path.join('/'), other.path.join('/')];
  return a < b ? -1 : a > b ? 1 : 0;
}
