/** Which actions one run may have side by side, and which are the same (RFC 5228 2.10, RFC 5429 2, RFC 5230 4.7). */
import { type SieveAction, type SieveLimits, SieveRunError } from './contract.js';

type Kind = SieveAction['kind'];

/** RFC 5429 2.1, 2.2: a message that is refused is neither delivered nor answered. */
const refusedBeside: ReadonlySet<Kind> = new Set<Kind>(['keep', 'fileinto', 'redirect', 'vacation', 'reject']);

/** Adds an action, or renews the one that asks for the same. @throws SieveRunError */
export function addAction(actions: SieveAction[], action: SieveAction, limits: SieveLimits): void {
  for (const other of actions) checkPair(other, action);
  const same = actions.findIndex((other) => isSame(other, action));
  if (same >= 0) {
    actions[same] = merge(actions[same]!, action);
    return;
  }
  if (actions.length >= limits.maxActions) throw new SieveRunError(`there are too many actions: at most ${limits.maxActions}`);
  if (action.kind === 'redirect' && count(actions, 'redirect') >= limits.maxRedirects) {
    throw new SieveRunError(`the message would be redirected too often: at most ${limits.maxRedirects} times`);
  }
  actions.push(action);
}

function count(actions: readonly SieveAction[], kind: Kind): number {
  return actions.filter((action) => action.kind === kind).length;
}

function checkPair(one: SieveAction, two: SieveAction): void {
  if (one.kind === 'vacation' && two.kind === 'vacation') {
    throw new SieveRunError("'vacation' can be used only once in a run");
  }
  const other = one.kind === 'reject' ? two : two.kind === 'reject' ? one : undefined;
  if (other && refusedBeside.has(other.kind)) {
    throw new SieveRunError(
      other.kind === 'reject' ? 'a message can be refused only once' : `a message can't be refused beside '${other.kind}'`,
    );
  }
}

function isSame(one: SieveAction, two: SieveAction): boolean {
  if (one.kind === 'fileinto' && two.kind === 'fileinto') {
    return one.mailbox === two.mailbox && one.specialUse === two.specialUse && one.mailboxId === two.mailboxId;
  }
  if (one.kind === 'redirect' && two.kind === 'redirect') {
    return sameAddress(one.address) === sameAddress(two.address) && one.list === two.list;
  }
  return one.kind === two.kind && (one.kind === 'keep' || one.kind === 'discard');
}

/** RFC 5321 2.4: only the domain's case means nothing. */
function sameAddress(address: string): string {
  const at = address.lastIndexOf('@') + 1;
  return address.slice(0, at) + address.slice(at).toLowerCase();
}

/** The later one's flags hold. */
function merge(earlier: SieveAction, later: SieveAction): SieveAction {
  if (earlier.kind === 'fileinto' && later.kind === 'fileinto') {
    return { ...later, creates: earlier.creates || later.creates, isCopy: earlier.isCopy && later.isCopy };
  }
  if (earlier.kind === 'redirect' && later.kind === 'redirect') {
    return { ...later, address: earlier.address, isCopy: earlier.isCopy && later.isCopy };
  }
  return later;
}
