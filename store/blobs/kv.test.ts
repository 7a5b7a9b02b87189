import { MemoryDatabase } from '../kv/index.js';
import { blobConformance } from './conformance.suite.js';
import { chunkKey } from './keys.js';

blobConformance(
  'the key-value store',
  async () => ({
    place: 'chunks',
    database: new MemoryDatabase(),
    external: undefined,
    away({ kv }) {
      kv.faults.outage = true;
    },
    back({ kv }) {
      kv.faults.clear();
    },
    async damage({ kv }, storageId, change) {
      const key = chunkKey(Buffer.from(storageId, 'hex'), 1);
      await kv.transact(async (tx) => {
        const bytes = change((await tx.get(key)) ?? Buffer.alloc(0));
        if (bytes) tx.set(key, bytes);
        else tx.clear(key);
      });
    },
    async close() {},
  }),
  { canBeFull: false, races: { runs: 10, rounds: 5 }, longBytes: 2_000_000 },
);
