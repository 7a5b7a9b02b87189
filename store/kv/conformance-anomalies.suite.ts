/**
 * The part of the conformance suite that tries the known ways in which databases are less than strictly serialisable: lost update, write
 * skew, phantoms, read skew, long fork, stale reads. Each is staged step by step, and then looked for in a crowd.
 */
import assert from 'node:assert/strict';
import {
  breathe,
  bytes,
  type CaseRoom,
  type ConformanceCase,
  everything,
  fill,
  once,
  seededNumbers,
} from './conformance-room.suite.js';
import type { KvReads, KvTransaction } from './contract.js';

const stagedCases: readonly ConformanceCase[] = [
  [
    'lost update: of two that read and add, both count',
    async (room) => {
      await fill(room, 'n=1');
      const addOne = async (tx: KvTransaction) => {
        const before = Number(await tx.get(room.key('n')));
        return () => tx.set(room.key('n'), bytes(String(before + 1)));
      };
      const first = await once(room.store, async (tx) => {
        const write = await addOne(tx);
        assert.equal(await once(room.other, async (inner) => (await addOne(inner))()), 'done');
        write();
      });
      assert.equal(first, 'conflict');
      assert.equal(await everything(room), 'n=2');
    },
  ],
  [
    'write skew over two keys, through gets, getMany and ranges: one of the two is refused',
    async (room) => {
      const both: readonly ((reads: KvReads) => Promise<unknown>)[] = [
        async (reads) => [await reads.get(room.key('a')), await reads.get(room.key('b'))],
        (reads) => reads.getMany([room.key('a'), room.key('b')]),
        (reads) => reads.getRange(room.key('a'), room.key('c')),
        (reads) => reads.getRange(room.key('a'), room.key('c'), { reverse: true, limit: 2 }),
      ];
      for (const read of both) {
        await fill(room, 'a=1 b=1');
        const result = await once(room.store, async (tx) => {
          await read(tx);
          const other = await once(room.other, async (inner) => {
            await read(inner);
            inner.set(room.key('a'), bytes('0'));
          });
          assert.equal(other, 'done');
          tx.set(room.key('b'), bytes('0'));
        });
        assert.equal(result, 'conflict', String(read));
        assert.equal(await everything(room), 'a=0 b=1');
      }
    },
  ],
  [
    'write skew by phantoms: two that count a range and add to it',
    async (room) => {
      const result = await once(room.store, async (tx) => {
        assert.equal((await tx.getRange(room.key('on-call/'), room.key('on-call0'))).length, 0);
        const other = await once(room.other, async (inner) => {
          assert.equal((await inner.getRange(room.key('on-call/'), room.key('on-call0'))).length, 0);
          inner.set(room.key('on-call/b'), bytes('1'));
        });
        assert.equal(other, 'done');
        tx.set(room.key('on-call/a'), bytes('1'));
      });
      assert.equal(result, 'conflict');
      assert.equal(await everything(room), 'on-call/b=1');
    },
  ],
  [
    'write skew by deletion: two that clear what the other has counted',
    async (room) => {
      await fill(room, 'd/a=1 d/b=1');
      const others = async (tx: KvTransaction) => (await tx.getRange(room.key('d/'), room.key('d0'))).length;
      const result = await once(room.store, async (tx) => {
        assert.equal(await others(tx), 2);
        const other = await once(room.other, async (inner) => {
          assert.equal(await others(inner), 2);
          inner.clearRange(room.key('d/b'), room.key('d/c'));
        });
        assert.equal(other, 'done');
        tx.clear(room.key('d/a'));
      });
      assert.equal(result, 'conflict');
      assert.equal(await everything(room), 'd/a=1');
    },
  ],
  [
    'read-only anomaly: a report that was made in between stays true',
    async (room) => {
      // Fekete, O'Neil, O'Neil 2004: two writers that are serialisable by themselves, until somebody has looked.
      await fill(room, 'checking=0 savings=0');
      const pair = async (reads: KvReads) =>
        (await reads.getMany([room.key('checking'), room.key('savings')])).map((value) => Number(value));
      let report: number[] = [];
      const withdrawing = await once(room.store, async (tx) => {
        const [checking, savings] = (await pair(tx)) as [number, number];
        await fill(room, 'savings=20', room.other);
        report = await room.other.read(pair);
        tx.set(room.key('checking'), bytes(String(checking + savings < 10 ? checking - 11 : checking - 10)));
      });
      assert.deepEqual(report, [0, 20]);
      // The report shows the deposit and not the withdrawal, so the withdrawal has to see the deposit.
      assert.equal(withdrawing, 'conflict');
    },
  ],
  [
    'read skew: no reader sees half of a commit',
    async (room) => {
      await fill(room, 'a=1 z=1');
      const look = async (reads: KvReads) => {
        const a = String(await reads.get(room.key('a')));
        await fill(room, 'a=2 z=2', room.other);
        const z = String(await reads.get(room.key('z')));
        await fill(room, 'a=1 z=1', room.other);
        return [a, z, ...(await reads.getMany([room.key('z'), room.key('a')])).map(String)];
      };
      assert.deepEqual(await room.store.read(look), ['1', '1', '1', '1']);
      assert.deepEqual(await room.store.transact(look), ['1', '1', '1', '1']);
    },
  ],
  [
    'aborted and unfinished writes are seen by nobody',
    async (room) => {
      await fill(room, 'a=1');
      const failure = new Error('no');
      const failing = room.store.transact(async (tx) => {
        tx.set(room.key('a'), bytes('2'));
        tx.set(room.key('b'), bytes('2'));
        assert.equal((await tx.get(room.key('a')))?.toString(), '2');
        for (const store of room.stores) {
          assert.equal((await store.read((reads) => reads.get(room.key('a'))))?.toString(), '1');
          assert.equal(await store.transact((inner) => inner.get(room.key('b'))), undefined);
        }
        throw failure;
      });
      await assert.rejects(failing, failure);
      assert.equal(await everything(room), 'a=1');
    },
  ],
];

/** A body that throws after each kind of write, early and late, leaves no trace. */
const thrownCases: readonly ConformanceCase[] = [
  [
    'bodies that throw write nothing, whatever they had written, and are not run again',
    async (room) => {
      await fill(room, 'keep=1');
      const writes: readonly ((tx: KvTransaction) => void)[] = [
        (tx) => tx.set(room.key('a'), bytes('1')),
        (tx) => tx.clear(room.key('keep')),
        (tx) => tx.clearRange(room.begin, room.end),
        (tx) => tx.add(room.key('n'), 1n),
        (tx) => tx.setVersionstampedKey(room.key('log/'), bytes(''), bytes('1')),
      ];
      for (const write of writes) {
        const failure = new RangeError('no');
        let runs = 0;
        const failing = room.store.transact(async (tx) => {
          runs++;
          await tx.get(room.key('keep'));
          write(tx);
          await tx.get(room.key('other'));
          throw failure;
        });
        await assert.rejects(failing, (error) => error === failure);
        assert.equal(runs, 1);
      }
      await assert.rejects(
        room.store.read(async () => {
          throw new RangeError('no');
        }),
        RangeError,
      );
      assert.equal(await everything(room), 'keep=1');
    },
  ],
  [
    'a handle that is used after its body has ended does nothing',
    async (room) => {
      let kept: KvTransaction | undefined;
      await room.store.transact(async (tx) => {
        kept = tx;
        tx.set(room.key('a'), bytes('1'));
      });
      assert.throws(() => kept!.set(room.key('b'), bytes('1')));
      await assert.rejects(async () => kept!.get(room.key('a')));
      assert.equal(await everything(room), 'a=1');
    },
  ],
];

/** Each writer counts its own key up, blindly; what any reader sees of all of them is one state of one history. */
async function longFork(room: CaseRoom): Promise<void> {
  const writers = 4;
  const rounds = 15;
  const name = (writer: number) => room.key(`w${writer}`);
  const names = Array.from({ length: writers }, (_, writer) => name(writer));
  const acknowledged = new Array<number>(writers).fill(0);
  const seen: number[][] = [];
  let running = writers;
  const write = async (writer: number) => {
    for (let at = 1; at <= rounds; at++) {
      await room.stores[writer % room.stores.length]!.transact(async (tx) => tx.set(name(writer), bytes(String(at))));
      acknowledged[writer] = at;
    }
    running--;
  };
  const read = async (reader: number) => {
    const random = seededNumbers(reader);
    const store = room.stores[reader % room.stores.length]!;
    while (running > 0) {
      const floor = [...acknowledged];
      const look = async (reads: KvReads) => {
        if (random(3) === 0) {
          const rows = await reads.getRange(room.begin, room.end);
          const found = new Map(rows.map((row) => [row.key.toString('hex'), row.value]));
          return names.map((each) => found.get(each.toString('hex')));
        }
        if (random(2) === 0) return reads.getMany(names);
        const values: (Buffer | undefined)[] = [];
        // One by one from anywhere, so that the reads lie apart.
        for (let at = 0; at < writers; at++) values[(at + reader) % writers] = await reads.get(names[(at + reader) % writers]!);
        return values;
      };
      const values = random(2) === 0 ? await store.read(look) : await store.transact(look);
      const state = values.map((value) => Number(value ?? 0));
      for (const [writer, value] of state.entries()) {
        assert.ok(value >= floor[writer]!, 'a read did not see what was acknowledged before it began');
      }
      seen.push(state);
      await breathe();
    }
  };
  await Promise.all([...names.map((_, writer) => write(writer)), ...[0, 1, 2, 3].map(read)]);
  // Blind ascending counters: states of one history are ordered, component by component.
  seen.sort((a, b) => sum(a) - sum(b));
  for (let at = 1; at < seen.length; at++) {
    const [before, after] = [seen[at - 1]!, seen[at]!];
    assert.ok(
      before.every((value, writer) => value <= after[writer]!),
      `two readers disagree on the order of commits: ${before} and ${after}`,
    );
  }
  assert.ok(seen.length >= 4);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

const readOnlyCases: readonly ConformanceCase[] = [
  [
    'a read that begins after an acknowledged commit sees it, through every store and in every way of reading',
    async (room) => {
      const last = room.stores.length - 1;
      for (let at = 1; at <= 20; at++) {
        await room.stores[at % room.stores.length]!.transact(async (tx) => tx.set(room.key('n'), bytes(String(at))));
        const reader = room.stores[last - (at % room.stores.length)]!;
        const [byRead, byTransact, bySnapshot, byRange] = await Promise.all([
          reader.read((reads) => reads.get(room.key('n'))),
          reader.transact((tx) => tx.get(room.key('n'))),
          reader.transact((tx) => tx.snapshot.get(room.key('n'))),
          reader.read(async (reads) => (await reads.getRange(room.begin, room.end))[0]?.value),
        ]);
        assert.deepEqual([byRead, byTransact, bySnapshot, byRange].map(String), Array(4).fill(String(at)));
      }
    },
  ],
  [
    'a read that saw a commit is followed by no read that does not',
    async (room) => {
      // The commit may be seen before it is acknowledged; from then on everybody has to see it.
      let stop = false;
      const writing = (async () => {
        for (let at = 1; at <= 30; at++) await room.other.transact(async (tx) => tx.set(room.key('n'), bytes(String(at))));
        stop = true;
      })();
      let highest = 0;
      const reading = async (reader: number) => {
        for (let turn = reader; !stop; turn++) {
          const floor = highest;
          const value = Number((await room.stores[turn % room.stores.length]!.read((reads) => reads.get(room.key('n')))) ?? 0);
          assert.ok(value >= floor, `read ${value} after somebody had read ${floor}`);
          highest = Math.max(highest, value);
          await breathe();
        }
      };
      await Promise.all([writing, reading(0), reading(1), reading(2)]);
    },
  ],
  ['long fork: readers agree on the order of independent commits, and miss none that was acknowledged', longFork],
];

/** Many pairs of doctors go off call; each pair may lose one of them only. */
async function skewInACrowd(room: CaseRoom): Promise<void> {
  const pairs = 12;
  await room.store.transact(async (tx) => {
    for (let at = 0; at < pairs; at++) for (const side of ['a', 'b']) tx.set(room.key(`${at}/${side}`), bytes('on'));
  });
  const leave = (at: number, side: string, store: number) =>
    room.stores[store % room.stores.length]!.transact(async (tx) => {
      const on = await tx.getRange(room.key(`${at}/`), room.key(`${at}0`));
      if (on.length < 2) return false;
      tx.clear(room.key(`${at}/${side}`));
      return true;
    });
  const left = await Promise.all(
    Array.from({ length: pairs }, (_, at) => at).flatMap((at) => [leave(at, 'a', 0), leave(at, 'b', 1)]),
  );
  assert.equal(left.filter(Boolean).length, pairs);
  const rows = await room.store.read((reads) => reads.getRange(room.begin, room.end));
  assert.equal(rows.length, pairs);
}

export const anomalyCases: readonly ConformanceCase[] = [
  ...stagedCases,
  ...thrownCases,
  ...readOnlyCases,
  ['write skew in a crowd: of each pair exactly one leaves', skewInACrowd],
];
