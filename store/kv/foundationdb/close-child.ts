/**
 * A process with a store on `FDB_CLUSTER_FILE`, for `foundationdb.test.ts`. It watches a key and closes, and must come to its end by
 * itself; or, with the argument `exit`, ends in the middle of its work.
 */
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import type { KvError } from '../contract.js';
import { openFoundationDbStore } from './index.js';

const store = await openFoundationDbStore({
  clusterFile: process.env['FDB_CLUSTER_FILE'] ?? '',
  clientLibrary: process.env['FDB_CLIENT_LIBRARY'],
  logger: silentLogger,
  clock: systemClock,
  random: systemRandom,
});
const watch = await store.transact(async (tx) => tx.watch(Buffer.from('own/open')));
const reads = Array.from({ length: 1_000 }, () => store.read((tx) => tx.get(Buffer.from('own/read'))));
for (const read of reads) read.catch(() => {});
if (process.argv[2] === 'exit') {
  await Promise.any(reads);
  console.log('in the middle');
  process.exit(3);
}
const end = watch.fired.then(
  () => 'fired',
  (error: KvError) => `${error.code} ${error.reason}`,
);
await store.close();
console.log(await end);
