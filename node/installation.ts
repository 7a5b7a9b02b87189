/** Secrets of one installation, the same on all its nodes and over restarts: made by whoever comes first, kept in the store. */
import type { Random } from '../ops/telemetry/index.js';
import { key, subspace } from '../store/keyspace.js';
import type { KvStore } from '../store/kv/index.js';

const secretBytes = 32;

/** The secret of this name; made when there is none. */
export function installationSecret(kv: KvStore, name: string, random: Random): Promise<Buffer> {
  const fresh = random.bytes(secretBytes);
  const at = key(subspace.meta, 'secret', name);
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
