/**
 * A FoundationDB store whose commits can lose their answers, for tests: between the source and the client's transactions stands one who
 * swallows what the cluster says, or does not send what it was told to.
 */
import type { NativeDatabase, NativeTransaction } from 'foundationdb/dist/lib/native.js';
import { type Clock, silentLogger, systemRandom } from '../../../ops/telemetry/index.js';
import type { CommitFaults } from '../conformance.suite.js';
import type { KvStore } from '../contract.js';
import { RetryingStore } from '../retry.js';
import { startClient } from './client.js';
import { fdbCodes } from './errors.js';
import { FoundationSource } from './source.js';

/** What becomes of the next commit that writes: its own promise, given how to commit really. */
type CommitFate = (commit: () => Promise<void>) => Promise<void>;

const fates = new WeakMap<KvStore, { next: CommitFate | undefined }>();
const writes = new Set(['set', 'clear', 'clearRange', 'atomicOp', 'addWriteConflictRange']);

/** Opens a store on the cluster, the commits of which `decideNextCommit` can decide. */
export async function openLosingStore(clusterFile: string, clientLibrary: string | undefined, clock: Clock): Promise<KvStore> {
  const client = await startClient({ clientLibrary });
  const fate: { next: CommitFate | undefined } = { next: undefined };
  const real = client.createDatabase(clusterFile);
  const database: NativeDatabase = {
    createTransaction: () => between(real.createTransaction(), fate),
    setOption: (code, value) => real.setOption(code, value),
    close: () => real.close(),
  };
  const store = new RetryingStore(new FoundationSource(database, clock, client, silentLogger), clock, systemRandom);
  fates.set(store, fate);
  return store;
}

/** The next commit with writes through `store` goes as `fate` says. */
export function decideNextCommit(store: KvStore, fate: CommitFate): void {
  fates.get(store)!.next = fate;
}

/** Commits answered with 1021, as the conformance suite asks for them. */
export const lostAnswers: CommitFaults = {
  makeNextCommitUnknown: (store, outcome) =>
    decideNextCommit(store, async (commit) => {
      if (outcome === 'applied') await commit();
      throw Object.assign(new Error('lost on purpose'), { code: fdbCodes.commitUnknownResult });
    }),
};

function between(native: NativeTransaction, fate: { next: CommitFate | undefined }): NativeTransaction {
  let hasWritten = false;
  const commit = () => {
    const { next } = fate;
    if (!hasWritten || !next) return native.commit();
    fate.next = undefined;
    return next(() => native.commit());
  };
  return new Proxy(native, {
    get(target, name) {
      if (name === 'commit') return commit;
      if (writes.has(String(name))) hasWritten = true;
      if (name === 'reset') hasWritten = false;
      return (target[name as keyof NativeTransaction] as (...given: unknown[]) => unknown).bind(target);
    },
  });
}
