/** Secrets of one installation, the same on all its nodes and over restarts: made by whoever comes first, kept in the store. */
import type { Random } from '../ops/telemetry/index.js';
import { key, keyItems, keysUnder, subspace } from '../store/keyspace.js';
import type { KvStore } from '../store/kv/index.js';
import { SealError, type Sealer, type SealPlace } from '../store/settings/index.js';
import { StartError } from './start-error.js';

const secretBytes = 32;

const sealedKey = (name: string) => key(subspace.meta, 'sealed-secret', name);
const placeOf = (name: string): SealPlace => ({ purpose: 'installation', context: name });

/** The secret of this name; made when there is none. It protects nothing from whoever can read the store. */
export function installationSecret(kv: KvStore, name: string, random: Random): Promise<Buffer> {
  return keptOrNew(kv, key(subspace.meta, 'secret', name), random.bytes(secretBytes));
}

/**
 * A secret that only nodes with the cluster key know. It is sealed with that key rather than made from it, so that it stays the same when the key is
 * changed. Throws `StartError` when the key does not open it, KvError.
 */
export async function sealedInstallationSecret(kv: KvStore, name: string, sealer: Sealer, random: Random): Promise<Buffer> {
  const fresh = sealer.seal(random.bytes(secretBytes), placeOf(name));
  const sealed = await keptOrNew(kv, sealedKey(name), fresh);
  try {
    return sealer.open(sealed, placeOf(name));
  } catch (error) {
    if (!(error instanceof SealError)) throw error;
    throw new StartError(`the installation's secret for ${name} can't be opened: ${error.message}`, { cause: error });
  }
}

/** Seals those secrets with the newest cluster key. Harmless to repeat. Answers how many were sealed anew. Throws SealError, KvError. */
export function resealInstallationSecrets(kv: KvStore, sealer: Sealer): Promise<number> {
  const { begin, end } = keysUnder(subspace.meta, 'sealed-secret');
  return kv.transact(
    async (tx) => {
      let count = 0;
      // Few and small: one for each part of a node that has such a secret.
      for (const row of await tx.getRange(begin, end)) {
        const resealed = sealer.reseal(row.value, placeOf(String(keyItems(row.key).at(-1))));
        if (!resealed) continue;
        tx.set(row.key, resealed);
        count++;
      }
      return count;
    },
    { label: 'installation' },
  );
}

function keptOrNew(kv: KvStore, at: Buffer, fresh: Buffer): Promise<Buffer> {
  return kv.transact(
    async (tx) => {
      const kept = await tx.get(at);
      if (kept) return kept;
      tx.set(at, fresh);
      return fresh;
    },
    { label: 'installation' },
  );
}
