/**
 * What a transfer does outside of its target store, and how that is told. A claim lies in a target that is not whole yet: the mark of the storages that it
 * fills, so that it knows them again after an interruption and nobody else's are written to. A store that gave its blobs away with a copy says so for good:
 * two installations on one storage would delete each other's bytes.
 */
import type { Random } from '../../ops/telemetry/index.js';
import type { ExternalPlace } from '../blobs/external.js';
import { encodeMark } from '../blobs/identity.js';
import { storageKey } from '../blobs/keys.js';
import { nodeKeys } from '../keyspace.js';
import type { KvReads, KvStore, KvTransaction } from '../kv/contract.js';
import type { ExternalTotals } from './contract.js';
import { externalPlaces } from './external.js';
import { claimKey, movedKey } from './spaces.js';

/** Where blobs go instead of where the settings say. */
export interface BlobDestination {
  directory?: string;
  bucket?: string;
}

/** `own`: storages with a new mark; `in-place`: those that the installation had; `shared`: those of the source of a copy. */
export type ClaimMode = 'own' | 'in-place' | 'shared';

export interface Claim {
  /** 32 hex digits; the mark of the storages where they are its own. */
  mark: string;
  mode: ClaimMode;
  /** Whose marks change when the target is finished. */
  places: ExternalPlace[];
  /** Once all blobs are where they belong. */
  outcome?: BlobOutcome;
}

/** What became of the blobs, for whoever finishes the target, perhaps after an interruption. */
export interface BlobOutcome {
  totals: ExternalTotals;
  /**
   * Whether the target takes over the storages of its source that it has not filled. Otherwise it forgets their marks, so that it refuses them instead of
   * using them together with the source.
   */
  keepsMarks: boolean;
  destination?: BlobDestination;
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

/** Writes down what became of the blobs. */
export async function noteOutcome(target: KvStore, random: Random, outcome: BlobOutcome): Promise<void> {
  const fresh: Claim = { mark: random.bytes(16).toString('hex'), mode: 'shared', places: [] };
  await target.transact(
    async (tx) => {
      const claim: Claim = { ...((await claimIn(tx)) ?? fresh), outcome };
      tx.set(claimKey, Buffer.from(JSON.stringify(claim)));
    },
    { label: 'transfer-claim' },
  );
}

export async function claimIn(reads: KvReads): Promise<Claim | undefined> {
  const value = await reads.get(claimKey);
  return value && (JSON.parse(value.toString('utf8')) as Claim);
}

/** Before the target is whole: lets its settings name where the blobs were put. Answers what became of them. */
export async function settleBlobs(
  target: KvStore,
  how?: { settle?(destination: BlobDestination): Promise<void> },
): Promise<BlobOutcome | undefined> {
  const outcome = (await target.read(claimIn))?.outcome;
  if (outcome?.destination) await how?.settle?.(outcome.destination);
  return outcome;
}

/** In the transaction that makes the target whole: from now on its storages are those that it has filled. */
export async function settleClaim(tx: KvTransaction): Promise<void> {
  const claim = await claimIn(tx);
  if (!claim) return;
  if (claim.outcome && !claim.outcome.keepsMarks) for (const place of externalPlaces) tx.clear(storageKey(place));
  if (claim.mode === 'own') for (const place of claim.places) tx.set(storageKey(place), encodeMark(claim.mark, true));
  tx.clear(claimKey);
}

export async function movedIn(reads: KvReads): Promise<Moved | undefined> {
  const value = await reads.get(movedKey);
  return value && (JSON.parse(value.toString('utf8')) as Moved);
}

/** From now on no node starts on `source`, and one that was only asleep finds itself fenced. */
export async function markMoved(source: KvStore, moved: Moved): Promise<void> {
  const fences = nodeKeys.fences();
  await source.transact(
    async (tx) => {
      tx.set(movedKey, Buffer.from(JSON.stringify(moved)));
      tx.clearRange(fences.begin, fences.end);
    },
    { label: 'transfer-moved' },
  );
}

export const movedSentence = ({ to, at }: Moved): string =>
  `this installation was moved to ${to} on ${at}, and its blobs with it: start nodes there; on this store they would delete bytes that are needed there`;
