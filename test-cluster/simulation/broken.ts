/**
 * Parts with a mistake in them, handed to the nodes in place of the right ones, to see that the simulator finds out. None of them is in production code:
 * each is a wrap around what a node is given.
 */
import type { LeaderLease } from '../../cluster/leases/index.js';
import { type Clock, silentLogger } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../../store/blobs/index.js';
import { subspace } from '../../store/keyspace.js';
import type { KvStore, KvTransaction, TransactOptions } from '../../store/kv/index.js';
import { keyText } from '../../store/kv/key-text.js';
import { createQueue, type Queue } from '../../store/queue/index.js';
import { keyParts } from './key-parts.js';
import type { NodeParts } from './node-parts.js';
import type { SeededRandom } from './random.js';

/**
 * `lease`: a job's effects do not assert its lease. `fence`: a verdict frees claims without breaking the fence. `save`: results are saved without a look at
 * the fence. `claim`: claims are taken without conflicts. `dedup`: the short way does not ask whether the message is there after an unknown commit.
 */
export const mistakes = ['lease', 'fence', 'save', 'claim', 'dedup'] as const;
export type Mistake = (typeof mistakes)[number];

export interface BrokenParts {
  lease(lease: LeaderLease): LeaderLease;
  /** What membership writes rows and fences to. */
  membershipStore(kv: KvStore): KvStore;
  /** What the queue stands on. */
  queueStore(kv: KvStore): KvStore;
  /** What deliveries save their results to. */
  deliveryStore(kv: KvStore): KvStore;
  /** The queue that frees the claims of the dead. */
  takeoverQueue(parts: NodeParts, clock: Clock, random: SeededRandom): Queue;
  /** What the short way looks at. */
  directBlobs(blobs: BlobStore): Pick<BlobStore, 'stat'>;
}

const isFence = (key: Uint8Array): boolean => {
  const parts = keyParts(keyText(key));
  return parts?.[0] === subspace.node && parts[1] === 'fence';
};

/** A store whose transactions with one of these labels are changed. */
function withTransactions(kv: KvStore, labels: readonly string[], change: (tx: KvTransaction) => KvTransaction): KvStore {
  const changed: KvStore['transactVersioned'] = (body, options?: TransactOptions) =>
    kv.transactVersioned(labels.includes(options?.label ?? '') ? (tx) => body(change(tx)) : body, options);
  return new Proxy(kv, {
    get(target, name) {
      if (name === 'transactVersioned') return changed;
      if (name === 'transact')
        return async <T>(body: (tx: KvTransaction) => Promise<T>, options?: TransactOptions) =>
          (await changed(body, options)).value;
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}

/** The same transaction with other methods. */
function changedTransaction(tx: KvTransaction, methods: Partial<KvTransaction>): KvTransaction {
  return new Proxy(tx, {
    get(target, name) {
      const own: unknown = Reflect.get(methods, name);
      if (own !== undefined) return own;
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}

const present = Buffer.alloc(0);

/** Every fence stands. */
const fencesStand = (tx: KvTransaction): KvTransaction =>
  changedTransaction(tx, {
    get: async (key) => (isFence(key) ? present : tx.get(key)),
    getMany: async (keys) => (await tx.getMany(keys)).map((value, at) => (isFence(keys[at]!) ? present : value)),
  });

/** No fence stands. */
const fencesAreBroken = (tx: KvTransaction): KvTransaction =>
  changedTransaction(tx, { get: async (key) => (isFence(key) ? undefined : tx.get(key)) });

const keepsFences = (tx: KvTransaction): KvTransaction =>
  changedTransaction(tx, {
    clear: (key) => {
      if (!isFence(key)) tx.clear(key);
    },
  });

const withoutConflicts = (tx: KvTransaction): KvTransaction =>
  changedTransaction(tx, { get: (key) => tx.snapshot.get(key), getMany: (keys) => tx.snapshot.getMany(keys) });

/** The parts of a node, with at most one mistake in them. */
export function partsWith(mistake: Mistake | undefined): BrokenParts {
  return {
    lease: (lease) =>
      mistake !== 'lease'
        ? lease
        : {
            job: lease.job,
            get isHeld() {
              return lease.isHeld;
            },
            get epoch() {
              return lease.epoch;
            },
            assert: async () => {},
          },
    membershipStore: (kv) => (mistake === 'fence' ? withTransactions(kv, ['break-fence'], keepsFences) : kv),
    queueStore: (kv) => (mistake === 'claim' ? withTransactions(kv, ['claim'], withoutConflicts) : kv),
    takeoverQueue: (parts, clock, random) =>
      mistake !== 'fence'
        ? parts.queue
        : createQueue({
            kv: withTransactions(parts.kv, ['take-over'], fencesAreBroken),
            blobs: parts.blobs,
            clock,
            random,
            logger: silentLogger,
          }),
    directBlobs: (blobs) => (mistake === 'dedup' ? { stat: async () => undefined } : blobs),
    deliveryStore: (kv) => (mistake === 'save' ? withTransactions(kv, ['settle', 'deliver'], fencesStand) : kv),
  };
}
