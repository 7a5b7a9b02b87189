/**
 * What clients have seen of a history that is lost: after a restore the mailboxes stand as they stood when the backup was made, while clients remember messages
 * and changes of a later time. No UID may mean another message for them (RFC 9051 2.3.1.1), and no modseq another state (RFC 7162 3.1.2.2): so an account goes on
 * far above anything that was ever given, and a modseq of the time that is lost counts as that of a client that knows nothing. UIDVALIDITY stays, and with it
 * all that clients rightly have.
 */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import { type AccountId, type Change, mailLimits } from './contract.js';
import { newChangeToken } from './ids.js';
import { AccountKeys } from './keys.js';
import { encodeLog } from './log.js';
import {
  decodeCounts,
  decodeLogFloor,
  decodeState,
  encodeCounts,
  encodeLogFloor,
  encodeState,
  type LogFloor,
} from './records.js';

/** More messages than come to one mailbox between a backup and the end of what it was made of; 4,000 restores use up the UIDs of a mailbox. */
const uidsAhead = 1_000_000;
/** The same for changes of one account. */
const modseqsAhead = 1_000_000_000;
/** A mailbox that has given nearly all its UIDs keeps half of the rest for its messages. */
const uidsThereAre = 0xffff_ffff;
const maxUidValidity = 0xffff_0000;

/**
 * Has an account go on above what its clients may have seen; nothing else of it changes. To be called while nobody uses the store. Harmless to repeat. False
 * where there is no account (any more). Throws KvError.
 */
export async function goAhead(
  { kv, clock, random }: { kv: KvStore; clock: Clock; random: Random },
  accountId: AccountId,
): Promise<boolean> {
  const keys = new AccountKeys(accountId);
  const token = newChangeToken(random);
  const nowSeconds = Math.floor(clock.nowMs() / 1000);
  return kv.transact((tx) => moveAhead(tx, keys, token, nowSeconds), { label: 'mail-go-ahead' });
}

/** Above that of any mailbox that was made in the time that is lost: they are seconds, or one more than the last. */
const seedAhead = (seed: number, nowSeconds: number): number =>
  Math.max(seed, Math.min(Math.max(seed, nowSeconds) + mailLimits.maxMailboxes, maxUidValidity));

async function moveAhead(tx: KvTransaction, keys: AccountKeys, token: Buffer, nowSeconds: number): Promise<boolean> {
  const [stateValue, floorValue] = await tx.getMany([keys.state, keys.logFloor]);
  const floor = decodeLogFloor(floorValue);
  if (!stateValue) {
    // A removed account: should it be made again, it goes on from here.
    const modseq = floor.modseq + modseqsAhead;
    const uidValiditySeed = seedAhead(floor.uidValiditySeed, nowSeconds);
    if (floorValue) tx.set(keys.logFloor, encodeLogFloor({ ...floor, modseq, uidValiditySeed }));
    return false;
  }
  const state = decodeState(stateValue);
  const to = state.modseq + modseqsAhead;
  const { begin, end } = keys.allCounts;
  const changes: Change[] = [];
  for (const { key, value } of await tx.getRange(begin, end)) {
    const counts = decodeCounts(value);
    const ahead = Math.min(uidsAhead, Math.max(0, uidsThereAre - counts.uidNext) >>> 1);
    tx.set(key, encodeCounts({ ...counts, uidNext: counts.uidNext + ahead, highestModseq: to }));
    changes.push({ kind: 'mailbox-updated', mailboxId: keys.countsOf(key) });
  }
  // The log tells of every modseq at which an account stood still.
  encodeLog(changes, token).forEach((value, part) => {
    tx.set(keys.logAt(to, part), value);
  });
  const uidValiditySeed = seedAhead(state.uidValiditySeed, nowSeconds);
  tx.set(keys.state, encodeState({ ...state, modseq: to, uidValiditySeed }));
  tx.set(keys.logFloor, encodeLogFloor({ ...floor, lost: { from: floor.lost?.from ?? state.modseq, to } }));
  return true;
}

/** A modseq that a client remembers, as this store can compare it: 0 for one that belongs to a lost history. */
export function comparableModseq(modseq: number, lost: LogFloor['lost']): number {
  return lost && modseq > lost.from && modseq < lost.to ? 0 : modseq;
}
