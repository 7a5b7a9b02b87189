/**
 * What a transfer does outside of its target store, and how that is told. A claim lies in a target that is not whole yet: the mark of the storages that it
 * fills, so that it knows them again after an interruption and nobody else's are written to. A store that gave its blobs away with a copy says so for good:
 * two installations on one storage would delete each other's bytes.
 */
import type { Random } from '../../ops/telemetry/index.js';
import type { ExternalPlace } from '../blobs/external.js';
import { encodeMark } from '../blobs/identity.js';
import { storageKey } from '../blobs/keys.js';
import type { KvReads, KvStore, KvTransaction } from '../kv/contract.js';
import { claimKey, movedKey } from './spaces.js';

/** `own`: storages with a new mark; `in-place`: those that the installation had; `shared`: those of the source of a copy. */
export type ClaimMode = 'own' | 'in-place' | 'shared';

export interface Claim {
  /** 32 hex digits; the mark of the storages where they are its own. */
  mark: string;
  mode: ClaimMode;
  /** Whose marks change when the target is finished. */
  places: ExternalPlace[];
}

export interface Moved {
  /** The claim of the store that took over. */
  claim: string;
  to: string;
  at: string;
}

/** Makes the target's claim, or finds it. `isResumed`: it was there. */
export async function claimStorages(
  target: KvStore,
  random: Random,
  wanted: Omit<Claim, 'mark'>,
): Promise<{ mark: string; isResumed: boolean }> {
  const fresh = random.bytes(16).toString('hex');
  return target.transact(
    async (tx) => {
      const found = await claimIn(tx);
      const mark = found?.mark ?? fresh;
      tx.set(claimKey, Buffer.from(JSON.stringify({ ...wanted, mark } satisfies Claim)));
      // An unheard commit of this very call has its own mark.
      return { mark, isResumed: mark !== fresh };
    },
    { label: 'transfer-claim' },
  );
}

export async function claimIn(reads: KvReads): Promise<Claim | undefined> {
  const value = await reads.get(claimKey);
  return value && (JSON.parse(value.toString('utf8')) as Claim);
}

/** In the transaction that makes the target whole: from now on its storages are those that it has filled. */
export async function settleClaim(tx: KvTransaction): Promise<void> {
  const claim = await claimIn(tx);
  if (!claim) return;
  if (claim.mode === 'own') for (const place of claim.places) tx.set(storageKey(place), encodeMark(claim.mark, true));
  tx.clear(claimKey);
}

export async function movedIn(reads: KvReads): Promise<Moved | undefined> {
  const value = await reads.get(movedKey);
  return value && (JSON.parse(value.toString('utf8')) as Moved);
}

/** From now on no node starts on `source`. */
export async function markMoved(source: KvStore, moved: Moved): Promise<void> {
  await source.transact(async (tx) => tx.set(movedKey, Buffer.from(JSON.stringify(moved))), { label: 'transfer-moved' });
}

export const movedSentence = ({ to, at }: Moved): string =>
  `this installation was moved to ${to} on ${at}, and its blobs with it: start nodes there; on this store they would delete bytes that are needed there`;
