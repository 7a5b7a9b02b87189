/**
 * Announcements made for one session and taken by the others: sessions that know the same state of a mailbox, and speak the same extensions, must be told
 * the same text about the next one. Ten thousand of them in IDLE cost one formatting, and share one list of UIDs.
 */
import type { UidList } from '../../store/mail/contract.js';

/** What an announcement depends on, apart from the state that it leads to. */
export interface AnnouncementKey {
  before: UidList;
  sinceModseq: number;
  modseq: number;
  /** Of the client: which responses it understands. */
  dialect: number;
}

export interface Announcement {
  text: string;
  /** UIDs that the client knows of afterwards. */
  uids: UidList;
  toldExpunges: boolean;
}

interface Entry extends Announcement {
  before: WeakRef<ArrayBufferLike>;
  beforeLength: number;
  sinceModseq: number;
  modseq: number;
  dialect: number;
}

const maxEntriesPerList = 4;
/** By the memory of the index's list: a list that was given out never changes, and goes when nobody holds it any more. */
const entriesOf = new WeakMap<ArrayBufferLike, Entry[]>();

/** The announcement that another session has been given for the same step; `latest` is the index's present list. */
export function sharedAnnouncement(latest: UidList, key: AnnouncementKey): Announcement | undefined {
  return entriesOf
    .get(latest.buffer)
    ?.find(
      (entry) =>
        entry.modseq === key.modseq &&
        entry.sinceModseq === key.sinceModseq &&
        entry.dialect === key.dialect &&
        entry.beforeLength === key.before.length &&
        entry.uids.length === latest.length &&
        entry.before.deref() === key.before.buffer,
    );
}

export function shareAnnouncement(latest: UidList, key: AnnouncementKey, announcement: Announcement): void {
  let entries = entriesOf.get(latest.buffer);
  if (!entries) {
    entries = [];
    entriesOf.set(latest.buffer, entries);
  }
  if (entries.length >= maxEntriesPerList) entries.shift();
  const { before, ...rest } = key;
  entries.push({ ...rest, ...announcement, before: new WeakRef(before.buffer), beforeLength: before.length });
}
