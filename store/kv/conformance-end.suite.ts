/** The part of the conformance suite that needs a store for itself: what comes after `close`, and transactions that take too long. */
import assert from 'node:assert/strict';
import { systemClock } from '../../ops/telemetry/index.js';
import { bytes, type ConformanceBackend, once, ShiftedClock } from './conformance-room.suite.js';
import { KvError, type KvStore, kvLimits, prefixEnd } from './contract.js';

export type StoreCase = readonly [name: string, run: (backend: ConformanceBackend) => Promise<void>, timeoutMs?: number];

const prefix = bytes('conformance/end/');
const key = (name: string) => Buffer.concat([prefix, bytes(name)]);
const isClosed = (error: unknown) => error instanceof KvError && error.code === 'unavailable' && error.reason === 'closed';

/** Opens a store, empties the part that these cases use, and closes it again whatever happens. */
async function withStore<S extends ShiftedClock | undefined>(
  backend: ConformanceBackend,
  clock: S,
  body: (store: KvStore, clock: S) => Promise<void>,
): Promise<void> {
  const store = await backend.open(clock);
  try {
    await store.transact(async (tx) => tx.clearRange(prefix, prefixEnd(prefix)));
    await body(store, clock);
  } finally {
    await store.close();
  }
}

export const endCases: readonly StoreCase[] = [
  [
    'refuses everything after close, and close may be repeated',
    (backend) =>
      withStore(backend, undefined, async (store) => {
        const watch = await store.transact(async (tx) => tx.watch(key('k')));
        await store.transact(async (tx) => tx.set(key('k'), bytes('1')));
        await watch.fired;
        const cancelled = await store.transact(async (tx) => tx.watch(key('k')));
        cancelled.cancel();
        const waiting = await store.transact(async (tx) => tx.watch(key('k')));
        await Promise.all([store.close(), store.close()]);
        await assert.rejects(waiting.fired, isClosed);
        // What had ended before stays as it was.
        await Promise.all([watch.fired, cancelled.fired]);
        await assert.rejects(
          store.transact(async (tx) => tx.set(key('k'), bytes('2'))),
          isClosed,
        );
        await assert.rejects(
          store.read((reads) => reads.get(key('k'))),
          isClosed,
        );
        await assert.rejects(store.check(), isClosed);
        await store.close();
      }),
  ],
  [
    'close settles every commit and every watch: each is done, or says that it is not',
    (backend) =>
      withStore(backend, undefined, async (store) => {
        const watches = await Promise.all(
          Array.from({ length: 20 }, (_, at) => store.transact(async (tx) => tx.watch(key(`w${at}`)))),
        );
        const commits = Array.from({ length: 20 }, (_, at) => store.transact(async (tx) => tx.set(key(`c${at}`), bytes('1'))));
        const settled = Promise.allSettled(commits);
        await store.close();
        for (const result of await settled) {
          if (result.status === 'rejected') assert.ok(result.reason instanceof KvError, String(result.reason));
        }
        for (const watch of watches) await assert.rejects(watch.fired, isClosed);
      }),
  ],
];

/** Moves the store's clock past the longest time of a transaction. */
const tooLongMs = kvLimits.maxTransactionMs + 1;

export const timeCases: readonly StoreCase[] = [
  [
    'is too old after 5 s, on reads and on commit, and starts anew',
    (backend) =>
      withStore(backend, new ShiftedClock(), async (store, clock) => {
        const reading = await once(store, async (tx) => {
          await tx.get(key('k'));
          clock.advance(tooLongMs);
          await tx.get(key('k'));
        });
        assert.equal(reading, 'too-old');
        const committing = await once(store, async (tx) => {
          await tx.get(key('k'));
          tx.set(key('k'), bytes('1'));
          clock.advance(tooLongMs);
        });
        assert.equal(committing, 'too-old');
        let runs = 0;
        await store.transact(async (tx) => {
          assert.equal(await tx.get(key('k')), undefined);
          if (runs++ === 0) clock.advance(tooLongMs);
          tx.set(key('k'), bytes('2'));
        });
        assert.equal(runs, 2);
      }),
  ],
  [
    'is too old in ranges, in snapshot reads, in read(), with its own writes beside',
    (backend) =>
      withStore(backend, new ShiftedClock(), async (store, clock) => {
        const late = async (body: Parameters<typeof once>[1]) =>
          assert.equal(
            await once(store, async (tx) => {
              await tx.get(key('k'));
              tx.set(key('own'), bytes('1'));
              clock.advance(tooLongMs);
              await body(tx);
            }),
            'too-old',
          );
        await late((tx) => tx.getRange(prefix, prefixEnd(prefix)));
        await late((tx) => tx.snapshot.get(key('k')));
        await late((tx) => tx.getMany([key('k'), key('own')]));
        let runs = 0;
        await store.read(async (reads) => {
          await reads.get(key('k'));
          if (runs++ === 0) clock.advance(tooLongMs);
          await reads.get(key('k'));
        });
        assert.equal(runs, 2);
        assert.equal(await store.read((reads) => reads.get(key('own'))), undefined);
      }),
  ],
  [
    'too-old is not retried for ever: not beyond the attempts, nor beyond the signal',
    (backend) =>
      withStore(backend, new ShiftedClock(), async (store, clock) => {
        let runs = 0;
        const hopeless = async (stop?: AbortController) => {
          runs++;
          stop?.abort(new Error('enough'));
        };
        const failing = (stop: AbortController | undefined) =>
          store.transact(
            async (tx) => {
              await tx.get(key('k'));
              tx.set(key('k'), bytes('1'));
              clock.advance(tooLongMs);
              await hopeless(runs >= 2 ? stop : undefined);
            },
            stop ? { signal: stop.signal } : { maxAttempts: 4 },
          );
        await assert.rejects(failing(undefined), (error) => error instanceof KvError && error.code === 'too-old');
        assert.equal(runs, 4);
        runs = 0;
        await assert.rejects(failing(new AbortController()), /enough/);
        assert.equal(runs, 3);
        assert.equal(await store.read((reads) => reads.get(key('k'))), undefined);
      }),
  ],
  [
    'a transaction that has read nothing has no version that could be too old',
    (backend) =>
      withStore(backend, new ShiftedClock(), async (store, clock) => {
        const result = await once(store, async (tx) => {
          tx.set(key('k'), bytes('1'));
          clock.advance(tooLongMs);
          tx.add(key('n'), 1n);
        });
        assert.equal(result, 'done');
        assert.equal((await store.read((reads) => reads.get(key('k'))))?.toString(), '1');
      }),
  ],
];

/** In real time; registered with `STARLING_KV_SLOW=1`. */
export const slowCases: readonly StoreCase[] = [
  [
    'a transaction that really runs for longer than 5 s is too old, and the store goes on',
    (backend) =>
      withStore(backend, undefined, async (store) => {
        const slowly = (body: Parameters<typeof once>[1]) =>
          once(store, async (tx) => {
            await tx.get(key('k'));
            tx.set(key('k'), bytes('late'));
            await systemClock.sleep(kvLimits.maxTransactionMs + 2_000);
            await body(tx);
          });
        // A store where nothing is written may have no newer version: something is.
        const stop = new AbortController();
        const writing = (async () => {
          for (let at = 0; !stop.signal.aborted; at++) {
            await store.transact(async (tx) => tx.set(key('other'), bytes(String(at))));
            await systemClock.sleep(100);
          }
        })();
        const results = await Promise.all([slowly((tx) => tx.get(key('k'))), slowly(async () => {})]);
        stop.abort();
        await writing;
        assert.deepEqual(results, ['too-old', 'too-old']);
        assert.equal(await store.read((reads) => reads.get(key('k'))), undefined);
      }),
    30_000,
  ],
];
