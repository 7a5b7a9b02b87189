/**
 * Which messages of a set are gone (RFC 7162 3.2.5, 3.2.6): exactly, as far as the index or the account's change log reach back; further back everything of
 * the set that is not there, which the RFC allows, as ranges. Pure but for the reading of the log.
 */
import type { MailStore } from '../../store/mail/contract.js';
import { absentFrom, clipRanges } from './grammar/ranges.js';
import { inRanges, type Ranges, resolveRanges } from './grammar/sequence-set.js';
import type { SelectedMailbox } from './selected.js';

/** Changes of the account that are read at most to tell exactly what was removed. */
const maxLoggedSets = 20_000;
const setsPerRead = 1_000;

/**
 * UIDs of `within` that were removed after `sinceModseq` and that this client has not in its numbering: ascending, disjoint ranges. What it still numbers is
 * announced as removed at its time, in the other form of VANISHED.
 */
export async function vanishedSince(
  mail: MailStore,
  selected: SelectedMailbox,
  sinceModseq: number,
  within: Ranges,
): Promise<Ranges> {
  if (within.length === 0) return [];
  const removed = selected.index.removedAfter(sinceModseq) ?? (await removedByLog(mail, selected, sinceModseq));
  if (!removed) {
    const found = await mail.mailboxById(selected.accountId, selected.mailbox.id);
    // Beyond the highest UID that ever was there is nothing that could be gone.
    const { uids } = selected;
    const last = Math.max((found?.counts.uidNext ?? 1) - 1, uids[uids.length - 1] ?? 0);
    return absentFrom(uids, clipRanges(within, 1, last));
  }
  const told: number[] = [];
  for (const uid of removed) if (inRanges(within, uid) && selected.sequenceOf(uid) === 0) told.push(uid, uid);
  return resolveRanges(told, 0);
}

/** Undefined where the log does not reach back, or is too long to read. */
async function removedByLog(mail: MailStore, selected: SelectedMailbox, sinceModseq: number): Promise<number[] | undefined> {
  const upToModseq = selected.index.modseq;
  if (upToModseq - sinceModseq > maxLoggedSets) return undefined;
  const removed: number[] = [];
  for (let modseq = sinceModseq; modseq < upToModseq; ) {
    const part = await mail.changesSince(selected.accountId, modseq, setsPerRead);
    if (!part) return undefined;
    for (const set of part.sets) {
      if (set.modseq > upToModseq) return removed;
      for (const change of set.changes)
        if (change.kind === 'entry-removed' && change.mailboxId === selected.mailbox.id) removed.push(change.uid);
    }
    if (!part.hasMore) return removed;
    modseq = part.upToModseq;
  }
  return removed;
}
