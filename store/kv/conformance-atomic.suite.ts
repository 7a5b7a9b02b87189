/** The part of the conformance suite about atomic operations and versionstamped keys, one transaction at a time. */
import assert from 'node:assert/strict';
import { bytes, type ConformanceCase, once } from './conformance-room.suite.js';
import type { KvTransaction } from './contract.js';

export const atomicCases: readonly ConformanceCase[] = [
  [
    'add, max and min: absent values, signs, overflow, short and long values',
    async (room) => {
      const k = room.key('k');
      const value = async () => (await room.store.read((reads) => reads.get(k)))?.toString('hex');
      const step = async (body: (tx: KvTransaction) => void, expected: string) => {
        await room.store.transact(async (tx) => body(tx));
        assert.equal(await value(), expected);
      };
      await step((tx) => tx.add(k, 5n), '0500000000000000');
      await step((tx) => tx.add(k, -7n), 'feffffffffffffff');
      await step((tx) => tx.add(k, 3n), '0100000000000000');
      await step((tx) => tx.max(k, 0xff00000000000000n), '00000000000000ff');
      await step((tx) => tx.min(k, 300n), '2c01000000000000');
      await step((tx) => tx.max(k, 7n), '2c01000000000000');
      await step((tx) => tx.clear(k), undefined as unknown as string);
      await step((tx) => tx.min(k, 9n), '0900000000000000');
      await step((tx) => tx.set(k, Buffer.from('0102', 'hex')), '0102');
      await step((tx) => tx.add(k, 1n), '0202000000000000');
      await step((tx) => tx.set(k, Buffer.from('ffffffffffffffffee', 'hex')), 'ffffffffffffffffee');
      await step((tx) => tx.add(k, 1n), '0000000000000000');
    },
  ],
  [
    'atomic operations are seen by the transaction itself, folded in order',
    async (room) => {
      await room.store.transact(async (tx) => tx.add(room.key('n'), 10n));
      await room.store.transact(async (tx) => {
        tx.add(room.key('n'), 5n);
        tx.add(room.key('n'), 6n);
        tx.max(room.key('n'), 100n);
        tx.add(room.key('n'), 1n);
        assert.equal((await tx.get(room.key('n')))!.readBigInt64LE(), 101n);
        tx.set(room.key('m'), Buffer.alloc(8));
        tx.add(room.key('m'), 2n);
        tx.clear(room.key('n2'));
        tx.min(room.key('n2'), 4n);
        const rows = await tx.getRange(room.begin, room.end);
        assert.deepEqual(
          rows.map((row) => row.value.readBigInt64LE()),
          [2n, 101n, 4n],
        );
      });
      const rows = await room.store.read((reads) => reads.getRange(room.begin, room.end));
      assert.deepEqual(
        rows.map((row) => row.value.readBigInt64LE()),
        [2n, 101n, 4n],
      );
    },
  ],
  [
    'atomic operations cause no read conflict, but are writes to readers',
    async (room) => {
      const adding = await once(room.store, async (tx) => {
        await tx.get(room.key('other'));
        tx.add(room.key('n'), 1n);
        await room.store.transact(async (inner) => inner.add(room.key('n'), 1n));
      });
      assert.equal(adding, 'done');
      const reading = await once(room.store, async (tx) => {
        await tx.get(room.key('n'));
        await room.store.transact(async (inner) => inner.add(room.key('n'), 1n));
        tx.set(room.key('mine'), bytes('1'));
      });
      assert.equal(reading, 'conflict');
      assert.equal((await room.store.read((reads) => reads.get(room.key('n'))))!.readBigInt64LE(), 3n);
    },
  ],
  [
    'versionstamped keys sort in commit order and end in their suffix',
    async (room) => {
      const versions: bigint[] = [];
      for (let at = 0; at < 5; at++) {
        const { version } = await room.store.transactVersioned(async (tx) => {
          tx.setVersionstampedKey(room.key('log/'), bytes(`/${at}`), bytes(String(at)));
          assert.equal((await tx.getRange(room.begin, room.end)).length, at);
        });
        versions.push(version);
      }
      const rows = await room.store.read((reads) => reads.getRange(room.begin, room.end));
      assert.deepEqual(
        rows.map((row) => row.value.toString()),
        ['0', '1', '2', '3', '4'],
      );
      const stampAt = room.key('log/').length;
      rows.forEach(({ key }, at) => {
        assert.equal(key.length, stampAt + 12);
        assert.equal(key.readBigUInt64BE(stampAt), versions[at]);
        assert.equal(key.subarray(stampAt + 10).toString(), `/${at}`);
      });
    },
  ],
  [
    'versionstamps of commits in one batch differ',
    async (room) => {
      const one = (at: number) =>
        room.store.transact(async (tx) => tx.setVersionstampedKey(room.key('log/'), bytes(''), bytes(String(at))));
      await Promise.all(Array.from({ length: 50 }, (_, at) => one(at)));
      const rows = await room.store.read((reads) => reads.getRange(room.begin, room.end));
      assert.equal(rows.length, 50);
    },
  ],
];
