/** A value sealed at the first start: a node with another cluster key is found out before it can write anything that the others can't read. */
import type { KvReads, KvStore } from '../kv/contract.js';
import { SettingsError } from './contract.js';
import { keyCheckKey } from './records.js';
import { SealError, type Sealer, type SealPlace } from './seal.js';

export const keyCheckPlace: SealPlace = { purpose: 'key-check', context: '' };
const checkText = Buffer.from('starling');

/** Throws when nothing may be written to this store; its reads count for conflicts. */
export type Precondition = (reads: KvReads) => Promise<void>;

/** Whether secrets of this store have been sealed by anybody yet. */
export async function hasClusterKey(kv: KvStore): Promise<boolean> {
  return (await kv.read((reads) => reads.get(keyCheckKey), { label: 'settings' })) !== undefined;
}

/** Throws `SettingsError` (`wrong-key`) unless the store's secrets are sealed with a key of this sealer. In an empty store, from now on they are. */
export async function checkClusterKey(kv: KvStore, sealer: Sealer, precondition?: Precondition): Promise<void> {
  const fresh = sealer.seal(checkText, keyCheckPlace);
  const kept = await kv.transact(
    async (tx) => {
      await precondition?.(tx);
      const value = await tx.get(keyCheckKey);
      if (!value) tx.set(keyCheckKey, fresh);
      return value ?? fresh;
    },
    { label: 'settings' },
  );
  try {
    sealer.open(kept, keyCheckPlace);
  } catch (error) {
    if (!(error instanceof SealError)) throw error;
    const message = `the secrets in this store are sealed with another cluster key (not with ${sealer.keyId}): give this node the key that the other nodes have`;
    throw new SettingsError('wrong-key', message, [], { cause: error });
  }
}
