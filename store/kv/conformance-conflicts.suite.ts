/** The part of the conformance suite about one transaction against another: snapshots, what conflicts, and what does not. */
import assert from 'node:assert/strict';
import { bytes, type CaseRoom, type ConformanceCase, everything, fill, once, shown } from './conformance-room.suite.js';
import type { KvTransaction } from './contract.js';

export const conflictCases: readonly ConformanceCase[] = [
  [
    'reads one snapshot, whatever is committed meanwhile',
    async (room) => {
      await fill(room, 'a=1 b=1');
      const result = await once(room.store, async (tx) => {
        assert.equal((await tx.get(room.key('a')))?.toString(), '1');
        await fill(room, 'a=2 b=2 c=2', room.other);
        assert.equal((await tx.get(room.key('b')))?.toString(), '1');
        assert.equal(shown(await tx.getRange(room.begin, room.end)), 'a=1 b=1');
      });
      // It wrote nothing, so it stands where its snapshot stands.
      assert.equal(result, 'done');
    },
  ],
  [
    'lost update: the second of two writers conflicts',
    (room) => conflictsAfter(room, (tx) => tx.get(room.key('b')), 'b=2', 'conflict'),
  ],
  [
    'a read of an absent key conflicts with its creation',
    (room) => conflictsAfter(room, (tx) => tx.get(room.key('x')), 'x=1', 'conflict'),
  ],
  ['reads of other keys do not conflict', (room) => conflictsAfter(room, (tx) => tx.get(room.key('a')), 'b=2 x=1', 'done')],
  [
    'a phantom in a range conflicts',
    (room) => conflictsAfter(room, (tx) => tx.getRange(room.key('a'), room.key('d')), 'bb=1', 'conflict'),
  ],
  [
    'the begin of a range conflicts',
    (room) => conflictsAfter(room, (tx) => tx.getRange(room.key('b'), room.key('d')), 'b=9', 'conflict'),
  ],
  [
    'the end of a range does not',
    (room) => conflictsAfter(room, (tx) => tx.getRange(room.key('b'), room.key('d')), 'd=9', 'done'),
  ],
  [
    'up to the last key before the limit everything does',
    (room) => conflictsAfter(room, (tx) => tx.getRange(room.key('a'), room.key('z'), { limit: 2 }), 'b=9', 'conflict'),
  ],
  [
    'backwards, everything above the last key conflicts',
    (room) =>
      conflictsAfter(room, (tx) => tx.getRange(room.key('a'), room.key('z'), { limit: 2, reverse: true }), 'y=1', 'conflict'),
  ],
  [
    'getMany conflicts like get',
    (room) => conflictsAfter(room, (tx) => tx.getMany([room.key('a'), room.key('b')]), 'b=2', 'conflict'),
  ],
  ['snapshot reads do not conflict', (room) => conflictsAfter(room, readAllBySnapshot(room), 'a=9 b=9 x=9', 'done')],
  [
    'declared read conflicts count',
    (room) =>
      conflictsAfter(
        room,
        declared((tx) => tx.addReadConflictKey(room.key('x'))),
        'x=1',
        'conflict',
      ),
  ],
  [
    'declared read conflict ranges count',
    (room) =>
      conflictsAfter(
        room,
        declared((tx) => tx.addReadConflictRange(room.key('w'), room.key('y'))),
        'x=1',
        'conflict',
      ),
  ],
  [
    'declared write conflicts count, with nothing written',
    async (room) => {
      for (const declare of [
        (tx: KvTransaction) => tx.addWriteConflictKey(room.key('k')),
        (tx: KvTransaction) => tx.addWriteConflictRange(room.key('a'), room.key('z')),
      ]) {
        const result = await once(room.store, async (tx) => {
          await tx.get(room.key('k'));
          await room.other.transact(async (other) => declare(other));
          tx.set(room.key('mine'), bytes('1'));
        });
        assert.equal(result, 'conflict');
      }
    },
  ],
  [
    'a cleared range conflicts with reads inside it, not at its end',
    async (room) => {
      await fill(room, 'a=1 b=1 c=1');
      const clearing = (read: string) =>
        once(room.store, async (tx) => {
          await tx.get(room.key(read));
          await room.other.transact(async (other) => other.clearRange(room.key('a'), room.key('c')));
          tx.set(room.key('mine'), bytes('1'));
        });
      assert.equal(await clearing('b'), 'conflict');
      assert.equal(await clearing('c'), 'done');
    },
  ],
  [
    'write skew is refused',
    async (room) => {
      await fill(room, 'a=1 b=1');
      const result = await once(room.store, async (tx) => {
        await tx.get(room.key('a'));
        const other = await once(room.other, async (inner) => {
          await inner.get(room.key('b'));
          inner.set(room.key('a'), bytes('0'));
        });
        assert.equal(other, 'done');
        tx.set(room.key('b'), bytes('0'));
      });
      assert.equal(result, 'conflict');
      assert.equal(await everything(room), 'a=0 b=1');
    },
  ],
  [
    'blind writes never conflict',
    async (room) => {
      const result = await once(room.store, async (tx) => {
        tx.set(room.key('a'), bytes('mine'));
        await fill(room, 'a=other', room.other);
      });
      assert.equal(result, 'done');
      assert.equal(await everything(room), 'a=mine');
    },
  ],
  [
    'runs the body again after a conflict, with the new state',
    async (room) => {
      await fill(room, 'n=1');
      let runs = 0;
      const seen = await room.store.transact(async (tx) => {
        const value = (await tx.get(room.key('n')))!.toString();
        if (runs++ === 0) await fill(room, 'n=2', room.other);
        tx.set(room.key('copy'), bytes(value));
        return value;
      });
      assert.equal(seen, '2');
      assert.equal(runs, 2);
    },
  ],
  [
    'stops retrying when the signal says so',
    async (room) => {
      const abort = new AbortController();
      const reason = new Error('enough');
      const running = room.store.transact(
        async (tx) => {
          await tx.get(room.key('n'));
          await fill(room, 'n=1', room.other);
          tx.set(room.key('m'), bytes('1'));
          abort.abort(reason);
        },
        { signal: abort.signal },
      );
      await assert.rejects(running, reason);
    },
  ],
];

/** A declared conflict counts from the read version on, which a slow backend may learn a moment later. */
function declared(declare: (tx: KvTransaction) => void) {
  return async (tx: KvTransaction) => {
    declare(tx);
    await tx.readVersion();
  };
}

function readAllBySnapshot(room: CaseRoom) {
  return async (tx: KvTransaction) => {
    await tx.snapshot.get(room.key('a'));
    await tx.snapshot.getMany([room.key('b')]);
    await tx.snapshot.getRange(room.begin, room.end);
  };
}

/** A transaction reads, another commits `writes`, the first one writes: `expected` is how that ends. */
async function conflictsAfter(
  room: CaseRoom,
  read: (tx: KvTransaction) => Promise<unknown>,
  writes: string,
  expected: string,
): Promise<void> {
  await fill(room, 'a=1 b=1 c=1 d=1');
  const result = await once(room.store, async (tx) => {
    await read(tx);
    await fill(room, writes, room.other);
    tx.set(room.key('mine'), bytes('1'));
  });
  assert.equal(result, expected);
}
