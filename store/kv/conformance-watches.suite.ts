/**
 * The part of the conformance suite about watches. They may fire without need, and a value that changes and changes back may go unnoticed;
 * what must not happen is that somebody who saw one value sleeps while the key has another.
 */
import assert from 'node:assert/strict';
import { bytes, type CaseRoom, type ConformanceCase, fill } from './conformance-room.suite.js';
import { KvError, type KvStore, type KvTransaction, type KvWatch } from './contract.js';

async function watchOf(store: KvStore, key: Buffer): Promise<KvWatch> {
  return store.transact(async (tx) => tx.watch(key));
}

const isLost = (error: unknown) => error instanceof KvError && error.code === 'unavailable';

const plainCases: readonly ConformanceCase[] = [
  [
    'a watch fires on set, clear, cleared range and atomic operations',
    async ({ store, other, key }) => {
      await store.transact(async (tx) => tx.set(key('k'), bytes('0')));
      const changes: ((tx: KvTransaction) => void)[] = [
        (tx) => tx.set(key('k'), bytes('1')),
        (tx) => tx.clear(key('k')),
        (tx) => tx.add(key('k'), 1n),
        (tx) => tx.max(key('k'), 100n),
        (tx) => tx.min(key('k'), 3n),
        (tx) => tx.clearRange(key('a'), key('z')),
      ];
      for (const change of changes) {
        const watch = await watchOf(store, key('k'));
        await other.transact(async (tx) => change(tx));
        await watch.fired;
      }
    },
  ],
  [
    'a watch stays silent while other keys change, and resolves on cancel',
    async ({ store, other, key }) => {
      const watch = await watchOf(store, key('k'));
      let fired = false;
      void watch.fired.then(() => {
        fired = true;
      });
      await other.transact(async (tx) => {
        tx.set(key('j'), bytes('1'));
        tx.set(key('k2'), bytes('1'));
        tx.clearRange(key('l'), key('m'));
      });
      await store.read((reads) => reads.get(key('k')));
      assert.equal(fired, false);
      watch.cancel();
      watch.cancel();
      await watch.fired;
    },
  ],
  [
    'a watch that fired is over: later changes, cancelling it and asking again change nothing',
    async ({ store, other, key }) => {
      const watch = await watchOf(store, key('k'));
      let times = 0;
      const counting = watch.fired.then(() => {
        times++;
      });
      for (const value of ['1', '2', '3']) await other.transact(async (tx) => tx.set(key('k'), bytes(value)));
      await counting;
      watch.cancel();
      await watch.fired;
      assert.equal(times, 1);
    },
  ],
  [
    'a watch may be cancelled before its transaction commits',
    async ({ store, other, key }) => {
      const watch = await store.transact(async (tx) => {
        const early = tx.watch(key('k'));
        early.cancel();
        tx.set(key('other'), bytes('1'));
        return early;
      });
      await watch.fired;
      await other.transact(async (tx) => tx.set(key('k'), bytes('1')));
    },
  ],
  [
    'a watch does not outlive a body that throws',
    async ({ store, key }) => {
      let watch: KvWatch | undefined;
      await assert.rejects(
        store.transact(async (tx) => {
          watch = tx.watch(key('k'));
          throw new Error('no');
        }),
      );
      await assert.rejects(watch!.fired, isLost);
    },
  ],
  [
    'of a body that was run again, the first watch is lost and the last one counts',
    async (room) => {
      const watches: KvWatch[] = [];
      await room.store.transact(async (tx) => {
        await tx.get(room.key('n'));
        watches.push(tx.watch(room.key('k')));
        if (watches.length === 1) await fill(room, 'n=1', room.other);
        tx.set(room.key('mine'), bytes('1'));
      });
      assert.equal(watches.length, 2);
      await assert.rejects(watches[0]!.fired, isLost);
      await fill(room, 'k=1', room.other);
      await watches[1]!.fired;
    },
  ],
];

const neverLostCases: readonly ConformanceCase[] = [
  [
    'a change between the read and the commit of the watcher is not lost',
    async ({ store, other, key }) => {
      const reader = await store.transact(async (tx) => {
        await tx.snapshot.get(key('k'));
        await other.transact(async (inner) => inner.set(key('k'), bytes('1')));
        return tx.watch(key('k'));
      });
      await reader.fired;
      const writer = await store.transact(async (tx) => {
        await tx.snapshot.get(key('k'));
        await other.transact(async (inner) => inner.set(key('k'), bytes('2')));
        tx.set(key('elsewhere'), bytes('1'));
        return tx.watch(key('k'));
      });
      await writer.fired;
    },
  ],
  [
    'a change after the watch was set and before its transaction commits is not lost',
    async ({ store, other, key }) => {
      for (const alsoWrites of [false, true]) {
        const watch = await store.transact(async (tx) => {
          await tx.snapshot.get(key('k'));
          const early = tx.watch(key('k'));
          await other.transact(async (inner) => inner.set(key('k'), bytes(`${alsoWrites}`)));
          if (alsoWrites) tx.set(key('elsewhere'), bytes('1'));
          return early;
        });
        await watch.fired;
      }
    },
  ],
  [
    'a change at the very moment of the commit is not lost',
    async ({ store, other, key }) => {
      for (let at = 0; at < 15; at++) {
        const [watch] = await Promise.all([
          store.transact(async (tx) => {
            const value = Number((await tx.snapshot.get(key('k'))) ?? 0);
            return { value, watch: tx.watch(key('k')) };
          }),
          other.transact(async (tx) => tx.set(key('k'), bytes(String(at + 1)))),
        ]);
        // Who has seen the change already has nothing to wait for.
        if (watch.value <= at) await watch.watch.fired;
        else watch.watch.cancel();
      }
    },
  ],
  [
    'a watch set after an own write waits for the next change, and gets it',
    async ({ store, other, key }) => {
      const watch = await store.transact(async (tx) => {
        tx.set(key('k'), bytes('own'));
        return tx.watch(key('k'));
      });
      await other.transact(async (tx) => tx.set(key('k'), bytes('theirs')));
      await watch.fired;
    },
  ],
  [
    'everybody who watches a key is told, and so is everybody whose key is one of many',
    async (room) => {
      const same = await Promise.all(
        Array.from({ length: 100 }, (_, at) => watchOf(room.stores[at % room.stores.length]!, room.key('k'))),
      );
      await fill(room, 'k=1', room.other);
      await Promise.all(same.map((watch) => watch.fired));
      const names = Array.from({ length: 200 }, (_, at) => `m${at}`);
      const many = await room.store.transact(async (tx) => names.map((name) => tx.watch(room.key(name))));
      await fill(room, names.map((name) => `${name}=1`).join(' '), room.other);
      await Promise.all(many.map((watch) => watch.fired));
    },
  ],
  [
    'watchers in every store see the last value of a key that changes quickly: nobody sleeps through it',
    async (room) => {
      const last = 40;
      const follow = async (store: KvStore) => {
        for (;;) {
          const { value, watch } = await store.transact(async (tx) => ({
            value: Number((await tx.get(room.key('n'))) ?? 0),
            watch: tx.watch(room.key('n')),
          }));
          if (value === last) {
            watch.cancel();
            return;
          }
          await watch.fired;
        }
      };
      const count = async () => {
        for (let at = 1; at <= last; at++) await fill(room, `n=${at}`, room.other);
      };
      await Promise.all([...[0, 1, 2, 3].map((at) => follow(room.stores[at % room.stores.length]!)), count()]);
    },
  ],
  ['two that hand a turn to and fro by watches alone never both wait', pingPong],
];

/** Each waits until the number is its own, and passes it on: one lost wake-up and both sleep for ever. */
async function pingPong(room: CaseRoom): Promise<void> {
  const turns = 30;
  const play = async (player: number) => {
    const store = room.stores[player % room.stores.length]!;
    for (;;) {
      const { turn, watch } = await store.transact(async (tx) => {
        const seen = Number((await tx.get(room.key('turn'))) ?? 0);
        if (seen % 2 === player && seen < turns) tx.set(room.key('turn'), bytes(String(seen + 1)));
        return { turn: seen, watch: tx.watch(room.key('turn')) };
      });
      if (turn >= turns - 1) {
        watch.cancel();
        return;
      }
      if (turn % 2 !== player) await watch.fired;
      else watch.cancel();
    }
  };
  await Promise.all([play(0), play(1)]);
  assert.equal(String(await room.store.read((reads) => reads.get(room.key('turn')))), String(turns));
}

export const watchCases: readonly ConformanceCase[] = [...plainCases, ...neverLostCases];
