/** The part of the conformance suite about one transaction alone: order, values, ranges, and its own writes read back. */
import assert from 'node:assert/strict';
import { bytes, type CaseRoom, type ConformanceCase, everything, fill, number64, shown } from './conformance-room.suite.js';
import { type KeyValue, type KvTransaction, keyAfter } from './contract.js';

const plainCases: readonly ConformanceCase[] = [
  [
    'orders keys as unsigned bytes, prefixes first',
    async (room) => {
      const names = [[], [0], [0, 0], [0, 1], [1], [0x7f], [0x80], [0x80, 0], [0xfe, 0xff], [0xff], [0xff, 0], [0xff, 0xff]];
      const keys = names.map((name) => room.key(Uint8Array.from(name)));
      await room.store.transact(async (tx) => {
        for (const key of [...keys].reverse()) tx.set(key, bytes('x'));
      });
      const forward = await room.store.read((reads) => reads.getRange(room.begin, room.end));
      assert.deepEqual(
        forward.map((row) => row.key.toString('hex')),
        keys.map((key) => key.toString('hex')),
      );
      const backward = await room.store.read((reads) => reads.getRange(room.begin, room.end, { reverse: true }));
      assert.deepEqual(
        backward.map((row) => row.key.toString('hex')),
        keys.map((key) => key.toString('hex')).reverse(),
      );
    },
  ],
  [
    'keeps empty and binary values, and tells an empty value from none',
    async (room) => {
      const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
      await room.store.transact(async (tx) => {
        tx.set(room.key('empty'), Buffer.alloc(0));
        tx.set(room.key('all'), all);
      });
      const [empty, found, none] = await room.store.read((reads) =>
        reads.getMany([room.key('empty'), room.key('all'), room.key('none')]),
      );
      assert.equal(empty?.length, 0);
      assert.ok(found?.equals(all));
      assert.equal(none, undefined);
    },
  ],
  [
    'ranges: begin inclusive, end exclusive, limits, both directions',
    async (room) => {
      await fill(room, 'a=1 b=2 c=3 d=4 e=5');
      const read = (from: string, to: string, options?: { limit?: number; reverse?: boolean }) =>
        room.store.read(async (reads) => shown(await reads.getRange(room.key(from), room.key(to), options)));
      assert.equal(await read('b', 'd'), 'b=2 c=3');
      assert.equal(await read('b', 'd', { reverse: true }), 'c=3 b=2');
      assert.equal(await read('a', 'z', { limit: 2 }), 'a=1 b=2');
      assert.equal(await read('a', 'z', { limit: 2, reverse: true }), 'e=5 d=4');
      assert.equal(await read('a', 'z', { limit: 0 }), '');
      assert.equal(await read('d', 'b'), '');
      assert.equal(await read('b', 'b'), '');
    },
  ],
  [
    'reads long ranges completely, page for page',
    async (room) => {
      const name = (at: number) => String(at).padStart(5, '0');
      await room.store.transact(async (tx) => {
        for (let at = 0; at < 2500; at++) tx.set(room.key(name(at)), bytes(name(at)));
      });
      const expected = Array.from({ length: 2500 }, (_, at) => name(at));
      const texts = (rows: KeyValue[]) => rows.map((row) => row.value.toString());
      const read = (options: object) => room.store.read((reads) => reads.getRange(room.begin, room.end, options));
      assert.deepEqual(texts(await read({})), expected);
      assert.deepEqual(texts(await read({ reverse: true })), [...expected].reverse());
      assert.deepEqual(texts(await read({ limit: 700 })), expected.slice(0, 700));
      assert.deepEqual(texts(await read({ limit: 700, reverse: true })), [...expected].reverse().slice(0, 700));
    },
  ],
  [
    'sees its own writes in gets and ranges, with all edges',
    async (room) => {
      await fill(room, 'a=1 b=2 c=3 d=4 e=5 f=6');
      await room.store.transact(async (tx) => {
        const range = async (options?: object) => shown(await tx.getRange(room.begin, room.end, options));
        tx.set(room.key('aa'), bytes('new'));
        tx.clear(room.key('b'));
        tx.clearRange(room.key('d'), room.key('f'));
        assert.equal(await range(), 'a=1 aa=new c=3 f=6');
        assert.equal(await range({ reverse: true }), 'f=6 c=3 aa=new a=1');
        assert.equal(await range({ limit: 3 }), 'a=1 aa=new c=3');
        assert.equal(await range({ limit: 2, reverse: true }), 'f=6 c=3');
        tx.set(room.key('e'), bytes('back'));
        tx.set(room.key('z'), bytes('last'));
        tx.set(room.key('c'), bytes('over'));
        assert.equal(await range(), 'a=1 aa=new c=over e=back f=6 z=last');
        assert.equal(shown(await tx.getRange(room.key('e'), room.key('f'))), 'e=back');
        assert.equal(shown(await tx.getRange(room.key('d'), room.key('e'))), '');
        assert.equal(await tx.get(room.key('d')), undefined);
        assert.equal((await tx.get(room.key('e')))?.toString(), 'back');
        assert.equal((await tx.snapshot.get(room.key('c')))?.toString(), 'over');
        const many = await tx.getMany([room.key('z'), room.key('a'), room.key('b')]);
        assert.deepEqual(many.map(String), ['last', '1', 'undefined']);
        tx.clearRange(room.key('a'), room.key('z'));
        assert.equal(await range(), 'z=last');
      });
      assert.equal(await everything(room), 'z=last');
    },
  ],
  [
    'writes nothing when the body throws, and throws that on',
    async (room) => {
      const failure = new Error('no');
      await assert.rejects(
        room.store.transact(async (tx) => {
          tx.set(room.key('a'), bytes('1'));
          throw failure;
        }),
        failure,
      );
      assert.equal(await everything(room), '');
    },
  ],
  [
    'copies what it is given and gives away what it returns',
    async (room) => {
      const value = bytes('first');
      const key = room.key('k');
      await room.store.transact(async (tx) => {
        tx.set(key, value);
        value.fill(0x78);
        key.fill(0x78);
        const own = await tx.get(room.key('k'));
        own!.fill(0x79);
      });
      const found = await room.store.read((reads) => reads.get(room.key('k')));
      assert.equal(found!.toString(), 'first');
      found!.fill(0x7a);
      assert.equal(await everything(room), 'k=first');
    },
  ],
  [
    'versions ascend; what has ended is seen by what begins later; a read floor is kept',
    async (room) => {
      let last = 0n;
      for (let at = 0; at < 10; at++) {
        const { version } = await room.store.transactVersioned(async (tx) => tx.set(room.key('n'), bytes(String(at))));
        assert.ok(version > last);
        const seen = await room.store.transactVersioned(
          async (tx) => [(await tx.get(room.key('n')))!.toString(), await tx.readVersion()] as const,
          { atLeastVersion: version },
        );
        assert.equal(seen.value[0], String(at));
        assert.ok(seen.value[1] >= version && seen.version >= version);
        last = version;
      }
    },
  ],
];

const ownWriteCases: readonly ConformanceCase[] = [
  [
    'own writes in ranges: limits count what is left, in both directions',
    async (room) => {
      await fill(room, 'a=1 b=2 c=3 d=4 e=5 f=6 g=7');
      await inside(room, async (tx, range) => {
        tx.clearRange(room.key('b'), room.key('d'));
        tx.set(room.key('c'), bytes('own'));
        tx.set(room.key('cc'), bytes('own'));
        tx.clear(room.key('f'));
        assert.equal(await range({ limit: 1 }), 'a=1');
        assert.equal(await range({ limit: 2 }), 'a=1 c=own');
        assert.equal(await range({ limit: 4 }), 'a=1 c=own cc=own d=4');
        assert.equal(await range({ limit: 6 }), 'a=1 c=own cc=own d=4 e=5 g=7');
        assert.equal(await range({ limit: 7 }), 'a=1 c=own cc=own d=4 e=5 g=7');
        assert.equal(await range({ limit: 1, reverse: true }), 'g=7');
        assert.equal(await range({ limit: 3, reverse: true }), 'g=7 e=5 d=4');
        assert.equal(await range({ limit: 5, reverse: true }), 'g=7 e=5 d=4 cc=own c=own');
        assert.equal(await range({ limit: 6, reverse: true }), 'g=7 e=5 d=4 cc=own c=own a=1');
      });
      assert.equal(await everything(room), 'a=1 c=own cc=own d=4 e=5 g=7');
    },
  ],
  [
    'own writes: the last word on a key counts, whatever came before',
    async (room) => {
      await fill(room, 'a=1 b=2 c=3 d=4');
      await inside(room, async (tx, range) => {
        tx.set(room.key('a'), bytes('x'));
        tx.clear(room.key('a'));
        tx.clear(room.key('b'));
        tx.set(room.key('b'), bytes('y'));
        tx.set(room.key('c'), bytes('gone'));
        tx.clearRange(room.key('c'), room.key('d'));
        tx.clearRange(room.key('d'), keyAfter(room.key('d')));
        tx.set(room.key('d'), bytes('z'));
        tx.clear(room.key('never'));
        assert.equal(await range(), 'b=y d=z');
        const many = await tx.getMany(['a', 'b', 'c', 'd', 'never'].map((name) => room.key(name)));
        assert.deepEqual(many.map(String), ['undefined', 'y', 'undefined', 'z', 'undefined']);
      });
      assert.equal(await everything(room), 'b=y d=z');
    },
  ],
  [
    'own cleared ranges: begin inclusive, end exclusive, empty ones clear nothing, neighbours join',
    async (room) => {
      await fill(room, 'a=1 b=2 c=3 d=4 e=5 f=6');
      await inside(room, async (tx, range) => {
        tx.clearRange(room.key('c'), room.key('c'));
        assert.equal(await range(), 'a=1 b=2 c=3 d=4 e=5 f=6');
        tx.clearRange(room.key('b'), room.key('c'));
        assert.equal(await range(), 'a=1 c=3 d=4 e=5 f=6');
        tx.clearRange(room.key('d'), room.key('e'));
        tx.clearRange(room.key('c'), room.key('d'));
        assert.equal(await range(), 'a=1 e=5 f=6');
        tx.clearRange(room.key('aa'), room.key('ee'));
        assert.equal(await range(), 'a=1 f=6');
        assert.equal(await range({ reverse: true }), 'f=6 a=1');
      });
      assert.equal(await everything(room), 'a=1 f=6');
    },
  ],
  [
    'own atomic operations in ranges: over values, over nothing, over own sets and own clears',
    async (room) => {
      await room.store.transact(async (tx) => {
        for (const name of ['a', 'b', 'c', 'd']) tx.set(room.key(name), number64(10n));
      });
      const expected = 'a=15 b=7 c=30 d=1 e=9 f=8 g=3';
      await room.store.transact(async (tx) => {
        tx.add(room.key('a'), 5n);
        tx.min(room.key('b'), 7n);
        tx.max(room.key('c'), 20n);
        tx.add(room.key('c'), 10n);
        tx.clearRange(room.key('d'), room.key('e'));
        tx.add(room.key('d'), 1n);
        tx.add(room.key('e'), 9n);
        tx.set(room.key('f'), number64(5n));
        tx.add(room.key('f'), 3n);
        tx.max(room.key('g'), 3n);
        tx.add(room.key('gone'), 3n);
        tx.clear(room.key('gone'));
        assert.equal(numbersShown(await tx.getRange(room.begin, room.end)), expected);
        assert.equal(numbersShown(await tx.snapshot.getRange(room.begin, room.end)), expected);
        assert.equal(numbersShown(await tx.getRange(room.key('b'), room.key('z'), { limit: 2 })), 'b=7 c=30');
        assert.equal(numbersShown(await tx.getRange(room.begin, room.end, { limit: 2, reverse: true })), 'g=3 f=8');
        const many = await tx.getMany([room.key('e'), room.key('a')]);
        assert.deepEqual(
          many.map((value) => value?.readBigUInt64LE()),
          [9n, 15n],
        );
      });
      assert.equal(numbersShown(await room.store.read((reads) => reads.getRange(room.begin, room.end))), expected);
    },
  ],
  [
    'a range of which everything is cleared reads as empty, and what lies behind it is found',
    async (room) => {
      await room.store.transact(async (tx) => {
        for (let at = 0; at < 600; at++) tx.set(room.key(`k${String(at).padStart(3, '0')}`), bytes('v'));
        tx.set(room.key('z'), bytes('last'));
        tx.set(room.key('a'), bytes('first'));
      });
      await inside(room, async (tx, range) => {
        // Key by key, so that no cleared range tells the reader where to go on.
        for (let at = 0; at < 600; at++) tx.clear(room.key(`k${String(at).padStart(3, '0')}`));
        assert.equal(await range({ limit: 2 }), 'a=first z=last');
        assert.equal(await range({ limit: 2, reverse: true }), 'z=last a=first');
        assert.equal(shown(await tx.getRange(room.key('k'), room.key('l'))), '');
        tx.set(room.key('k300'), bytes('back'));
        assert.equal(await range({ limit: 2 }), 'a=first k300=back');
        assert.equal(await range({ limit: 2, reverse: true }), 'z=last k300=back');
      });
      assert.equal(await everything(room), 'a=first k300=back z=last');
    },
  ],
  [
    'reads that were begun before a write of the same transaction may run beside it',
    async (room) => {
      await fill(room, 'a=1 b=2 c=3');
      await room.store.transact(async (tx) => {
        const reads = [tx.get(room.key('a')), tx.get(room.key('b')), tx.get(room.key('c'))];
        assert.deepEqual((await Promise.all(reads)).map(String), ['1', '2', '3']);
        const ranges = [tx.getRange(room.begin, room.end), tx.getRange(room.begin, room.end, { limit: 1, reverse: true })];
        assert.deepEqual((await Promise.all(ranges)).map(shown), ['a=1 b=2 c=3', 'c=3']);
        tx.set(room.key('d'), bytes('4'));
      });
      assert.equal(await everything(room), 'a=1 b=2 c=3 d=4');
    },
  ],
];

type OwnRange = (options?: { limit?: number; reverse?: boolean }) => Promise<string>;

/** Runs a body that looks at the whole room as it sees it. */
function inside(room: CaseRoom, body: (tx: KvTransaction, range: OwnRange) => Promise<void>): Promise<void> {
  return room.store.transact((tx) => body(tx, async (options) => shown(await tx.getRange(room.begin, room.end, options))));
}

function numbersShown(rows: readonly KeyValue[]): string {
  return rows.map(({ key, value }) => `${key.subarray(3).toString('latin1')}=${value.readBigUInt64LE()}`).join(' ');
}

export const readWriteCases: readonly ConformanceCase[] = [...plainCases, ...ownWriteCases];
