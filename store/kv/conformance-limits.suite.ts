/** The part of the conformance suite about FoundationDB's limits: at them everything works, one over them nothing does. */
import assert from 'node:assert/strict';
import { bytes, type ConformanceCase, everything, once } from './conformance-room.suite.js';
import { KvError, type KvTransaction, keyAfter, kvLimits } from './contract.js';

export const limitCases: readonly ConformanceCase[] = [
  [
    'refuses keys, values and transactions over their limits, and keeps what is at them',
    async (room) => {
      const longest = Buffer.concat([room.key(''), Buffer.alloc(kvLimits.maxKeyBytes - 3, 0x61)]);
      const largest = Buffer.alloc(kvLimits.maxValueBytes, 0x62);
      await room.store.transact(async (tx) => tx.set(longest, largest));
      const found = await room.store.read((reads) => reads.getRange(room.begin, room.end));
      assert.ok(found[0]!.key.equals(longest) && found[0]!.value.equals(largest));
      assert.equal(await once(room.store, async (tx) => tx.set(keyAfter(longest), bytes('1'))), 'too-large');
      assert.equal(await once(room.store, async (tx) => tx.set(room.key('k'), Buffer.alloc(largest.length + 1))), 'too-large');
      const over = await once(room.store, async (tx) => {
        for (let at = 0; at < 101; at++) tx.set(room.key(String(at)), largest);
      });
      assert.equal(over, 'too-large');
      await room.store.transact(async (tx) => tx.clearRange(room.begin, room.end));
    },
  ],
  [
    'takes a transaction right below the size limit',
    async (room) => {
      const value = Buffer.alloc(99_000, 0x63);
      await room.store.transact(async (tx) => {
        for (let at = 0; at < 100; at++) tx.set(room.key(String(at)), value);
      });
      assert.equal((await room.store.read((reads) => reads.getRange(room.begin, room.end))).length, 100);
      await room.store.transact(async (tx) => tx.clearRange(room.begin, room.end));
      assert.equal(await everything(room), '');
    },
  ],
  [
    'too-large is not retried',
    async (room) => {
      let runs = 0;
      const failing = room.store.transact(async (tx) => {
        runs++;
        tx.set(Buffer.alloc(kvLimits.maxKeyBytes + 1), bytes('1'));
      });
      await assert.rejects(failing, (error) => error instanceof KvError && error.code === 'too-large');
      assert.equal(runs, 1);
    },
  ],
  ['answers check()', (room) => room.store.check()],
  [
    'a key one over its limit is refused in every kind of write, and then nothing of the transaction is written',
    async (room) => {
      const longest = Buffer.concat([room.key(''), Buffer.alloc(kvLimits.maxKeyBytes - 3, 0x61)]);
      const longer = Buffer.concat([longest, bytes('a')]);
      const writes: Record<string, (tx: KvTransaction, key: Buffer) => void> = {
        set: (tx, key) => tx.set(key, bytes('1')),
        clear: (tx, key) => tx.clear(key),
        add: (tx, key) => tx.add(key, 1n),
        max: (tx, key) => tx.max(key, 1n),
        min: (tx, key) => tx.min(key, 1n),
        stamped: (tx, key) => tx.setVersionstampedKey(key.subarray(0, -11), bytes('a'), bytes('1')),
      };
      for (const [name, write] of Object.entries(writes)) {
        const result = await once(room.store, async (tx) => {
          tx.set(room.key('beside'), bytes('1'));
          write(tx, longer);
        });
        assert.equal(result, 'too-large', name);
        // FoundationDB puts four bytes of its own behind the key of a versionstamped write.
        if (name !== 'stamped') assert.equal(await once(room.store, async (tx) => write(tx, longest)), 'done', name);
      }
      assert.equal(await room.store.read((reads) => reads.get(room.key('beside'))), undefined);
    },
  ],
  [
    'a versionstamped value is bound by the same limit',
    async (room) => {
      const stamped = (valueBytes: number) =>
        once(room.store, async (tx) => tx.setVersionstampedKey(room.key('v/'), bytes(''), Buffer.alloc(valueBytes, 0x76)));
      assert.equal(await stamped(kvLimits.maxValueBytes), 'done');
      assert.equal(await stamped(kvLimits.maxValueBytes + 1), 'too-large');
      const rows = await room.store.read((reads) => reads.getRange(room.begin, room.end));
      assert.deepEqual(
        rows.map((row) => row.value.length),
        [kvLimits.maxValueBytes],
      );
    },
  ],
  [
    'keys, and not values alone, make a transaction large',
    async (room) => {
      const key = (at: number) => Buffer.concat([room.key(String(at).padStart(5, '0')), Buffer.alloc(9_900, 0x6b)]);
      let runs = 0;
      const failing = room.store.transact(async (tx) => {
        runs++;
        for (let at = 0; at < 1_020; at++) tx.set(key(at), bytes('1'));
      });
      await assert.rejects(failing, (error) => error instanceof KvError && error.code === 'too-large');
      assert.equal(runs, 1);
      assert.equal(await everything(room), '');
    },
  ],
  [
    'conflict ranges count towards the size of a transaction',
    async (room) => {
      const key = (at: number, last: string) =>
        Buffer.concat([room.key(String(at).padStart(5, '0')), Buffer.alloc(9_900, 0x6b), bytes(last)]);
      const result = await once(room.store, async (tx) => {
        for (let at = 0; at < 510; at++) tx.addReadConflictRange(key(at, 'a'), key(at, 'b'));
        tx.set(room.key('k'), bytes('1'));
      });
      assert.equal(result, 'too-large');
      assert.equal(await everything(room), '');
    },
  ],
  [
    'what is read may be larger than what may be written',
    async (room) => {
      const value = Buffer.alloc(95_000, 0x72);
      for (const part of ['a', 'b']) {
        await room.store.transact(async (tx) => {
          for (let at = 0; at < 60; at++) tx.set(room.key(`${part}${at}`), value);
        });
      }
      const rows = await room.store.read((reads) => reads.getRange(room.begin, room.end));
      assert.equal(rows.length, 120);
      assert.ok(rows.every((row) => row.value.equals(value)));
      await room.store.transact(async (tx) => tx.clearRange(room.begin, room.end));
    },
  ],
];
