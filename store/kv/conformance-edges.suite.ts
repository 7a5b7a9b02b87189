/** The part of the conformance suite about where conflicts begin and end: edges of ranges, limits, declared conflicts, own and blind writes. */
import assert from 'node:assert/strict';
import { afterwards, bytes, type ConformanceCase, everything, fill, once, shown } from './conformance-room.suite.js';
import { type KvTransaction, keyAfter } from './contract.js';

export const edgeCases: readonly ConformanceCase[] = [
  [
    'a range read conflicts with an insert, a deletion, a cleared range and an atomic operation inside it, and with none outside',
    async (room) => {
      const read = (tx: KvTransaction) => tx.getRange(room.key('b'), room.key('d'));
      const writes: readonly [expected: string, write: (tx: KvTransaction) => void][] = [
        ['conflict', (tx) => tx.set(room.key('bb'), bytes('1'))],
        ['conflict', (tx) => tx.clear(room.key('c'))],
        ['conflict', (tx) => tx.clearRange(room.key('bb'), room.key('cc'))],
        ['conflict', (tx) => tx.clearRange(room.key('a'), room.key('bb'))],
        ['conflict', (tx) => tx.clearRange(room.key('cc'), room.key('z'))],
        ['conflict', (tx) => tx.add(room.key('c0'), 1n)],
        ['done', (tx) => tx.clearRange(room.key('a'), room.key('b'))],
        ['done', (tx) => tx.clearRange(room.key('d'), room.key('e'))],
        ['done', (tx) => tx.set(room.key('d'), bytes('9'))],
        ['done', (tx) => tx.add(room.key('az'), 1n)],
      ];
      for (const [expected, write] of writes) {
        await fill(room, 'a=1 b=1 c=1 d=1');
        assert.equal(await afterwards(room, read, write), expected, String(write));
      }
    },
  ],
  [
    'an empty range read as empty conflicts with what appears in it',
    async (room) => {
      const read = (options?: object) => (tx: KvTransaction) => tx.getRange(room.key('p'), room.key('q'), options);
      const insert = (name: string) => (tx: KvTransaction) => tx.set(room.key(name), bytes('1'));
      assert.equal(await afterwards(room, read(), insert('p')), 'conflict');
      assert.equal(await afterwards(room, read({ limit: 5 }), insert('p1')), 'conflict');
      await room.store.transact(async (tx) => tx.clearRange(room.key('p'), room.key('q')));
      assert.equal(await afterwards(room, read({ limit: 1, reverse: true }), insert('p\xff\xff')), 'conflict');
      assert.equal(await afterwards(room, read(), insert('q')), 'done');
      assert.equal(await afterwards(room, read(), insert('o\xff\xff')), 'done');
    },
  ],
  [
    'a limit: everything up to the last key read conflicts, in both directions',
    async (room) => {
      // What lies beyond the last key may conflict too: a backend is free to look at more than it was asked for.
      const read = (options: object) => (tx: KvTransaction) => tx.getRange(room.key('a'), room.key('z'), options);
      const set = (name: string) => (tx: KvTransaction) => tx.set(room.key(name), bytes('9'));
      for (const name of ['a', 'aa', 'b']) {
        await fill(room, 'a=1 aa= b=1 c=1 d=1 e=1');
        assert.equal(await afterwards(room, read({ limit: 2 }), set(name)), 'conflict', name);
      }
      for (const name of ['d', 'dd', 'e', 'y']) {
        await fill(room, 'a=1 aa= b=1 c=1 d=1 dd= e=1 y=');
        await room.store.transact(async (tx) => tx.clear(room.key('mine')));
        assert.equal(await afterwards(room, read({ limit: 2, reverse: true }), set(name)), 'conflict', name);
      }
      for (const options of [{ limit: 2 }, { limit: 2, reverse: true }]) {
        await fill(room, 'a=1 aa= b=1 c=1 d=1 dd= e=1 y=');
        await room.store.transact(async (tx) => tx.clear(room.key('mine')));
        assert.ok(['done', 'conflict'].includes(await afterwards(room, read(options), set('c'))));
      }
      // A limit that was not reached limits nothing.
      assert.equal(await afterwards(room, read({ limit: 100 }), set('yy')), 'conflict');
    },
  ],
  [
    'a limit over own writes: what was read of the store conflicts, however the own writes are mixed in',
    async (room) => {
      const read = async (tx: KvTransaction) => {
        tx.set(room.key('aa'), bytes('own'));
        tx.clear(room.key('b'));
        return shown(await tx.getRange(room.key('a'), room.key('z'), { limit: 3 }));
      };
      for (const name of ['a', 'ab', 'bb', 'c']) {
        await room.store.transact(async (tx) => tx.clearRange(room.begin, room.end));
        await fill(room, 'a=1 b=1 c=1 d=1');
        const looking = async (tx: KvTransaction) => assert.equal(await read(tx), 'a=1 aa=own c=1');
        assert.equal(await afterwards(room, looking, (tx) => tx.set(room.key(name), bytes('9'))), 'conflict', name);
      }
    },
  ],
  [
    'declared ranges: begin inclusive, end exclusive, neighbours meet nowhere, empty ones nothing',
    async (room) => {
      const declare = (from: string, to: string) => async (tx: KvTransaction) =>
        tx.addReadConflictRange(room.key(from), room.key(to));
      const set = (name: string) => (tx: KvTransaction) => tx.set(room.key(name), bytes('1'));
      const touch = (from: string, to: string) => (tx: KvTransaction) => tx.addWriteConflictRange(room.key(from), room.key(to));
      assert.equal(await afterwards(room, declare('b', 'd'), set('b')), 'conflict');
      assert.equal(await afterwards(room, declare('b', 'd'), set('c\xff')), 'conflict');
      assert.equal(await afterwards(room, declare('b', 'd'), set('d')), 'done');
      assert.equal(await afterwards(room, declare('b', 'd'), set('a\xff\xff')), 'done');
      assert.equal(await afterwards(room, declare('b', 'd'), touch('d', 'e')), 'done');
      assert.equal(await afterwards(room, declare('b', 'd'), touch('a', 'b')), 'done');
      assert.equal(await afterwards(room, declare('b', 'd'), touch('a', 'b\0')), 'conflict');
      assert.equal(await afterwards(room, declare('b', 'd'), touch('c', 'c\0')), 'conflict');
      assert.equal(await afterwards(room, declare('c', 'c'), touch('a', 'z')), 'done');
      assert.equal(await afterwards(room, declare('a', 'z'), touch('c', 'c')), 'done');
      assert.equal(await afterwards(room, declare('c', 'c'), set('c')), 'done');
    },
  ],
  [
    'declared keys: that key, and neither the next one nor the one before',
    async (room) => {
      const declare = async (tx: KvTransaction) => tx.addReadConflictKey(room.key('c'));
      const touch = (key: Buffer) => (tx: KvTransaction) => tx.addWriteConflictKey(key);
      assert.equal(await afterwards(room, declare, touch(room.key('c'))), 'conflict');
      assert.equal(await afterwards(room, declare, touch(keyAfter(room.key('c')))), 'done');
      assert.equal(await afterwards(room, declare, touch(room.key('b\xff'))), 'done');
      assert.equal(await afterwards(room, declare, (tx) => tx.clearRange(room.key('b'), room.key('c'))), 'done');
      assert.equal(await afterwards(room, declare, (tx) => tx.clearRange(room.key('c'), keyAfter(room.key('c')))), 'conflict');
    },
  ],
  [
    'a get of a key that the transaction has set itself reads nothing; one that it has only added to reads the store',
    async (room) => {
      const own = (write: (tx: KvTransaction) => void) => async (tx: KvTransaction) => {
        write(tx);
        await tx.get(room.key('k'));
      };
      const set = (tx: KvTransaction) => tx.set(room.key('k'), Buffer.alloc(8, 1));
      assert.equal(await afterwards(room, own(set), set), 'done');
      assert.equal(
        await afterwards(
          room,
          own((tx) => tx.clear(room.key('k'))),
          set,
        ),
        'done',
      );
      assert.equal(
        await afterwards(
          room,
          own((tx) => tx.add(room.key('k'), 1n)),
          set,
        ),
        'conflict',
      );
    },
  ],
  [
    'blind writes of every kind never conflict, with anything',
    async (room) => {
      const writes: readonly ((tx: KvTransaction) => void)[] = [
        (tx) => tx.set(room.key('k'), Buffer.alloc(8)),
        (tx) => tx.clear(room.key('k')),
        (tx) => tx.clearRange(room.key('a'), room.key('z')),
        (tx) => tx.add(room.key('k'), 1n),
        (tx) => tx.max(room.key('k'), 1n),
        (tx) => tx.min(room.key('k'), 1n),
        (tx) => tx.setVersionstampedKey(room.key('k'), bytes(''), bytes('')),
        (tx) => tx.addWriteConflictRange(room.key('a'), room.key('z')),
        (tx) => tx.addWriteConflictKey(room.key('k')),
      ];
      for (const mine of writes) {
        const result = await once(room.store, async (tx) => {
          mine(tx);
          await room.other.transact(async (other) => {
            for (const write of writes) write(other);
          });
        });
        assert.equal(result, 'done', String(mine));
      }
    },
  ],
  [
    'a versionstamped key conflicts with whoever read the range that it falls into',
    async (room) => {
      const append = (tx: KvTransaction) => tx.setVersionstampedKey(room.key('log/'), bytes('!'), bytes('1'));
      const read = (tx: KvTransaction) => tx.getRange(room.key('log/'), room.key('log0'));
      assert.equal(await afterwards(room, read, append), 'conflict');
      assert.equal(await afterwards(room, (tx) => tx.getRange(room.key('m'), room.key('n')), append), 'done');
    },
  ],
  [
    'snapshot reads of every kind see one version and conflict with nothing, beside reads that do',
    async (room) => {
      await fill(room, 'a=1 b=1 c=1');
      const result = await once(room.store, async (tx) => {
        assert.equal((await tx.snapshot.get(room.key('a')))?.toString(), '1');
        await fill(room, 'a=2 b=2 d=2', room.other);
        assert.equal(shown(await tx.snapshot.getRange(room.begin, room.end)), 'a=1 b=1 c=1');
        assert.deepEqual((await tx.snapshot.getMany([room.key('b'), room.key('d')])).map(String), ['1', 'undefined']);
        assert.equal((await tx.get(room.key('c')))?.toString(), '1');
        tx.set(room.key('mine'), bytes('1'));
      });
      assert.equal(result, 'done');
      const both = await once(room.store, async (tx) => {
        await tx.snapshot.get(room.key('a'));
        await tx.get(room.key('a'));
        await fill(room, 'a=3', room.other);
        tx.set(room.key('mine'), bytes('2'));
      });
      assert.equal(both, 'conflict');
    },
  ],
  [
    'who wrote nothing never conflicts, whatever it read and whatever was changed',
    async (room) => {
      await fill(room, 'a=1 b=1');
      const result = await once(room.store, async (tx) => {
        await tx.getRange(room.begin, room.end);
        tx.addReadConflictRange(room.begin, room.end);
        await fill(room, 'a=2 c=2', room.other);
        assert.equal((await tx.get(room.key('a')))?.toString(), '1');
      });
      assert.equal(result, 'done');
    },
  ],
  [
    'one that conflicts has written nothing at all',
    async (room) => {
      await fill(room, 'a=1 n=1');
      const result = await once(room.store, async (tx) => {
        await tx.get(room.key('a'));
        await fill(room, 'a=2', room.other);
        tx.set(room.key('b'), bytes('1'));
        tx.clear(room.key('n'));
        tx.add(room.key('m'), 1n);
        tx.setVersionstampedKey(room.key('log/'), bytes(''), bytes('1'));
      });
      assert.equal(result, 'conflict');
      assert.equal(await everything(room), 'a=2 n=1');
    },
  ],
];
