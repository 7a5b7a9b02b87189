/** The part of the conformance suite where many transactions meet on few keys: counters, transfers, extremes, queues. */
import assert from 'node:assert/strict';
import { bytes, type CaseRoom, type ConformanceCase, number64, seededNumbers } from './conformance-room.suite.js';
import { KvError, type KvTransaction } from './contract.js';

const clients = 64;
/** Plenty for every client to get its turn among the others. */
const patient = { maxAttempts: 1000 } as const;

async function increment(tx: KvTransaction, key: Buffer): Promise<void> {
  const before = (await tx.get(key))?.readUInt32LE() ?? 0;
  const after = Buffer.alloc(4);
  after.writeUInt32LE(before + 1);
  tx.set(key, after);
}

/** Runs `body` in so many clients at once, which take the stores in turn. */
async function crowd(
  room: CaseRoom,
  count: number,
  body: (store: CaseRoom['store'], client: number) => Promise<void>,
): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, client) => body(room.stores[client % room.stores.length]!, client)));
}

async function number(room: CaseRoom, name: string): Promise<bigint | undefined> {
  return (await room.store.read((reads) => reads.get(room.key(name))))?.readBigUInt64LE();
}

const counterCases: readonly ConformanceCase[] = [
  [
    '64 clients count one counter by reading and writing',
    async (room) => {
      await crowd(room, clients, (store) => store.transact((tx) => increment(tx, room.key('n')), patient));
      assert.equal((await room.store.read((reads) => reads.get(room.key('n'))))!.readUInt32LE(), clients);
    },
  ],
  [
    '64 clients count one counter by atomic additions, at the first attempt',
    async (room) => {
      await crowd(room, clients, async (store) => {
        for (let at = 0; at < 5; at++) await store.transact(async (tx) => tx.add(room.key('n'), 1n), { maxAttempts: 1 });
      });
      assert.equal(await number(room, 'n'), BigInt(5 * clients));
    },
  ],
  [
    'additions and subtractions of many sizes give the exact sum, and the extremes are the extremes',
    async (room) => {
      const random = seededNumbers(11);
      const deltas = Array.from({ length: 200 }, () => BigInt(random(2_000_001) - 1_000_000) * 4_294_967_311n);
      const values = deltas.map((delta) => BigInt.asUintN(64, delta * 7_919n));
      let at = 0;
      await crowd(room, 16, async (store) => {
        for (let mine = at++; mine < deltas.length; mine = at++) {
          await store.transact(
            async (tx) => {
              tx.add(room.key('sum'), deltas[mine]!);
              tx.max(room.key('max'), values[mine]!);
              tx.min(room.key('min'), values[mine]!);
            },
            { maxAttempts: 1 },
          );
        }
      });
      const sum = deltas.reduce((total, delta) => total + delta, 0n);
      assert.equal(await number(room, 'sum'), BigInt.asUintN(64, sum));
      const sorted = [...values].sort((a, b) => (a < b ? -1 : 1));
      assert.deepEqual([await number(room, 'min'), await number(room, 'max')], [sorted[0], sorted.at(-1)]);
    },
  ],
  [
    'atomic additions beside sets and clears of the same key: each builds on what is there when it commits',
    async (room) => {
      // Every set and clear notes what it found; the additions in between are exactly what was found, plus what is left.
      const found: bigint[] = [];
      await crowd(room, 12, async (store, client) => {
        for (let at = 0; at < 6; at++) {
          if (client > 1) await store.transact(async (tx) => tx.add(room.key('n'), 1n));
          else {
            const taken = await store.transact(async (tx) => {
              const value = (await tx.get(room.key('n')))?.readBigUInt64LE() ?? 0n;
              if (client === 0) tx.clear(room.key('n'));
              else tx.set(room.key('n'), number64(0n));
              return value;
            }, patient);
            found.push(taken);
          }
        }
      });
      const left = (await number(room, 'n')) ?? 0n;
      assert.equal(
        found.reduce((total, value) => total + value, left),
        60n,
      );
    },
  ],
];

const crowdCases: readonly ConformanceCase[] = [
  [
    '64 clients take distinct numbers, ascending in commit order, without a gap',
    async (room) => {
      await crowd(room, clients, (store) =>
        store.transact(async (tx) => {
          const next = (await tx.get(room.key('!next')))?.readUInt32LE() ?? 0;
          await increment(tx, room.key('!next'));
          tx.setVersionstampedKey(room.key('log/'), new Uint8Array(), bytes(String(next)));
        }, patient),
      );
      const rows = (await room.store.read((reads) => reads.getRange(room.begin, room.end))).slice(1);
      assert.deepEqual(
        rows.map((row) => Number(row.value)),
        Array.from({ length: clients }, (_, at) => at),
      );
    },
  ],
  [
    'transfers keep their sum in every snapshot',
    async (room) => {
      const accounts = 8;
      await room.store.transact(async (tx) => {
        for (let at = 0; at < accounts; at++) tx.set(room.key(String(at)), bytes('100'));
      });
      const sum = async (store: CaseRoom['store']) => {
        const rows = await store.read((reads) => reads.getRange(room.begin, room.end));
        return rows.reduce((total, row) => total + Number(row.value), 0);
      };
      await crowd(room, 16, async (store, client) => {
        for (let at = 0; at < 4; at++) {
          const [from, to] = [room.key(String((client + at) % accounts)), room.key(String((client * 3 + at + 1) % accounts))];
          await store.transact(async (tx) => {
            const [a, b] = await tx.getMany([from, to]);
            if (from.equals(to)) return;
            tx.set(from, bytes(String(Number(a) - 1)));
            tx.set(to, bytes(String(Number(b) + 1)));
          }, patient);
          assert.equal(await sum(store), 100 * accounts);
        }
      });
      assert.equal(await sum(room.store), 100 * accounts);
    },
  ],
  [
    'a queue from whose head many take: everything is taken once, by whoever takes it',
    async (room) => {
      const items = 40;
      await room.store.transact(async (tx) => {
        for (let at = 0; at < items; at++) tx.set(room.key(`q/${String(at).padStart(3, '0')}`), bytes(String(at)));
      });
      const taken: string[] = [];
      await crowd(room, 8, async (store) => {
        for (;;) {
          const item = await store.transact(async (tx) => {
            const [first] = await tx.getRange(room.key('q/'), room.key('q0'), { limit: 1 });
            if (first) tx.clear(first.key);
            return first?.value.toString();
          }, patient);
          if (item === undefined) return;
          taken.push(item);
        }
      });
      assert.deepEqual(
        taken.map(Number).sort((a, b) => a - b),
        Array.from({ length: items }, (_, at) => at),
      );
    },
  ],
  [
    'who deletes a range and who adds to it: what was added before is gone, what was added after is there',
    async (room) => {
      // The clearer counts what it clears; the adders add blindly. Nothing is counted twice, nothing gets lost.
      let cleared = 0;
      const added = 60;
      let running = 6;
      const adding = crowd(room, running, async (store, client) => {
        for (let at = 0; at < added / 6; at++) {
          await store.transact(async (tx) => tx.set(room.key(`r/${client}/${at}`), bytes('1')));
        }
        running--;
      });
      const clearing = (async () => {
        while (running > 0) {
          cleared += await room.other.transact(async (tx) => {
            const rows = await tx.getRange(room.key('r/'), room.key('r0'));
            tx.clearRange(room.key('r/'), room.key('r0'));
            return rows.length;
          }, patient);
        }
      })();
      await Promise.all([adding, clearing]);
      const left = await room.store.read((reads) => reads.getRange(room.key('r/'), room.key('r0')));
      assert.equal(cleared + left.length, added);
    },
  ],
  [
    'a key that many create at once is created by one',
    async (room) => {
      for (let turn = 0; turn < 5; turn++) {
        const winners: number[] = [];
        const codes: string[] = [];
        await crowd(room, 16, async (store, client) => {
          try {
            const won = await store.transact(
              async (tx) => {
                if (await tx.get(room.key(`lock${turn}`))) return false;
                tx.set(room.key(`lock${turn}`), bytes(String(client)));
                return true;
              },
              { maxAttempts: 1 },
            );
            if (won) winners.push(client);
          } catch (error) {
            if (!(error instanceof KvError)) throw error;
            codes.push(error.code);
          }
        });
        assert.equal(winners.length, 1);
        assert.ok(codes.every((code) => code === 'conflict'));
        const owner = await room.store.read((reads) => reads.get(room.key(`lock${turn}`)));
        assert.equal(String(owner), String(winners[0]));
      }
    },
  ],
];

export const concurrencyCases: readonly ConformanceCase[] = [...counterCases, ...crowdCases];
