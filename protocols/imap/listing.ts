/**
 * What LIST and LSUB choose from: a user's own mailboxes, those of others that may be looked up, subscriptions to what is gone, and the names above them that
 * are no mailboxes (RFC 9051 6.3.9). Which of them are told follows from patterns and selection options alone.
 */
import type { SessionContext } from './context.js';
import { mailboxPattern, separator } from './grammar/mailbox-name.js';
import { type MailboxPlace, ownPlace } from './places.js';

export interface ListNode {
  name: string;
  path: readonly string[];
  /** Undefined where there is no mailbox (or none that this user may know of): \NonExistent. */
  place?: MailboxPlace;
  isSubscribed: boolean;
  hasChildren: boolean;
  matches: boolean;
  /** Something beneath is what the selection asks for. */
  hasSelectedBelow: boolean;
  /** … and is not told itself, because no pattern matches it. */
  hasUntoldBelow: boolean;
}

export interface ListSelection {
  patterns: readonly string[];
  onlySubscribed: boolean;
  onlySpecialUse: boolean;
}

/** Whether what is in question has a chance to be matched by a pattern: the fixed beginnings must agree. */
function mayReach(pattern: string, top: string): boolean {
  const wild = pattern.search(/[*%]/);
  const fixed = wild < 0 ? pattern : pattern.slice(0, wild);
  return fixed.length <= top.length ? top.startsWith(fixed) : fixed.startsWith(top + separator);
}

/** Reads what there is and marks what the patterns and the selection choose. In order: the own mailboxes, then all others. */
export async function readNodes(context: SessionContext, selection: ListSelection): Promise<ListNode[]> {
  const { services, accountId, shared } = context;
  const nodes = new Map<string, ListNode>();
  const add = (path: readonly string[], isSubscribed: boolean, place?: MailboxPlace): ListNode => {
    const name = path.join(separator);
    const node: ListNode = {
      name,
      path,
      ...(place ? { place } : {}),
      isSubscribed,
      hasChildren: false,
      matches: false,
      hasSelectedBelow: false,
      hasUntoldBelow: false,
    };
    nodes.set(name, node);
    return node;
  };
  for (const found of await services.mail.mailboxes(accountId))
    add(found.mailbox.path, found.mailbox.isSubscribed, ownPlace(accountId, found));
  const subscriptions = await services.mail.sharing.otherSubscriptions(accountId);
  const subscribedIds = new Set(subscriptions.map((one) => `${one.accountId}/${one.mailboxId}`));
  const reachesOthers = services.sharing
    ? [services.sharing.otherUsers, services.sharing.groups].some((top) =>
        selection.patterns.some((pattern) => mayReach(pattern, top)),
      )
    : false;
  const visible = shared && reachesOthers ? await shared.visible() : [];
  for (const place of visible) {
    const id = `${place.accountId}/${place.mailbox.id}`;
    // An own mailbox of the very same name is what `find` finds.
    if (!nodes.has(place.path.join(separator))) add(place.path, subscribedIds.has(id), place);
    subscribedIds.delete(id);
  }
  for (const { accountId: ownerId, mailboxId, path } of subscriptions) {
    if (!subscribedIds.has(`${ownerId}/${mailboxId}`) || nodes.has(path.join(separator))) continue;
    add(path, true);
  }
  for (const node of [...nodes.values()]) addParents(nodes, node, add);
  markMatches(nodes, selection);
  return [...nodes.values()];
}

type AddNode = (path: readonly string[], isSubscribed: boolean) => ListNode;

/** Names above a mailbox that are none themselves; and what is above something that exists has children. */
function addParents(nodes: Map<string, ListNode>, node: ListNode, add: AddNode): void {
  for (let depth = node.path.length - 1; depth > 0; depth--) {
    const path = node.path.slice(0, depth);
    const parent = nodes.get(path.join(separator));
    if (!parent) add(path, false).hasChildren = node.place !== undefined;
    else if (parent.hasChildren) return;
    else parent.hasChildren = node.place !== undefined;
  }
}

function markMatches(nodes: Map<string, ListNode>, selection: ListSelection): void {
  const matchers = selection.patterns.map(mailboxPattern);
  for (const node of nodes.values()) node.matches = matchers.some((matches) => matches(node.name));
  for (const node of nodes.values()) {
    if (!isSelected(node, selection)) continue;
    for (let end = node.name.lastIndexOf(separator); end > 0; end = node.name.lastIndexOf(separator, end - 1)) {
      const above = nodes.get(node.name.slice(0, end));
      if (!above || (above.hasSelectedBelow && (above.hasUntoldBelow || node.matches))) break;
      above.hasSelectedBelow = true;
      if (!node.matches) above.hasUntoldBelow = true;
    }
  }
}

/** Whether a name is what the selection options ask for. */
export function isSelected(node: ListNode, { onlySubscribed, onlySpecialUse }: ListSelection): boolean {
  if (onlySubscribed && !node.isSubscribed) return false;
  if (onlySpecialUse && !specialUse(node)) return false;
  return node.place !== undefined || onlySubscribed;
}

const useOfRole: Record<string, string> = {
  drafts: '\\Drafts',
  sent: '\\Sent',
  trash: '\\Trash',
  junk: '\\Junk',
  archive: '\\Archive',
};

/** The special use of a mailbox (RFC 6154), of one's own alone: those of others are not where this user's mail goes. */
export function specialUse({ place }: Pick<ListNode, 'place'>): string | undefined {
  if (!place || place.path !== place.mailbox.path) return undefined;
  return useOfRole[place.mailbox.role ?? ''];
}
