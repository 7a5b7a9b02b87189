/**
 * What every backend must do, as one suite: `describeConformance` registers it for a backend with the given test runner. Each case
 * works below a prefix of its own, so that a shared database may serve; the cases that need a store for themselves open one.
 */
import assert from 'node:assert/strict';
import { type Clock, systemClock } from '../../ops/telemetry/index.js';
import { concurrencyCases } from './conformance-concurrency.suite.js';
import { conflictCases } from './conformance-conflicts.suite.js';
import { bytes, type CaseRoom, type ConformanceCase, everything, fill, once, shown } from './conformance-room.suite.js';
import { type KeyValue, KvError, type KvStore, type KvTransaction, keyAfter, kvLimits, prefixEnd } from './contract.js';

/** One kind of store under test. */
export interface ConformanceBackend {
  readonly name: string;
  /** Opens a store; with the clock given, if the backend takes one. */
  open(clock?: Clock): Promise<KvStore>;
  /** Whether `open` heeds the clock: else what needs time to pass is left out. */
  readonly takesClock: boolean;
}

/** The part of vitest that the suite needs. */
export interface TestRunner {
  describe(name: string, body: () => void): void;
  it(name: string, body: () => Promise<void>): void;
  beforeAll(body: () => Promise<void>): void;
  afterAll(body: () => Promise<void>): void;
}

/** The machine's clock, moved forward at will. */
export class ShiftedClock implements Clock {
  #shiftMs = 0;
  advance(byMs: number): void {
    this.#shiftMs += byMs;
  }
  nowMs(): number {
    return systemClock.nowMs() + this.#shiftMs;
  }
  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#shiftMs;
  }
  setTimer: Clock['setTimer'] = systemClock.setTimer;
  sleep: Clock['sleep'] = systemClock.sleep;
}

/** Registers all cases for `backend`. */
export function describeConformance(runner: TestRunner, backend: ConformanceBackend): void {
  runner.describe(`key-value contract: ${backend.name}`, () => {
    let store: KvStore;
    runner.beforeAll(async () => {
      store = await backend.open();
    });
    runner.afterAll(() => store.close());
    [...readWriteCases, ...conflictCases, ...atomicCases, ...limitCases, ...concurrencyCases].forEach(([name, run], index) => {
      runner.it(name, () => run(roomIn(store, index)));
    });
    runner.it('refuses everything after close, and close may be repeated', () => closeCase(backend));
    if (!backend.takesClock) return;
    runner.it('is too old after 5 s, on reads and on commit, and starts anew', () => tooOldCase(backend));
  });
}

function roomIn(store: KvStore, index: number): CaseRoom {
  const prefix = Buffer.from([0x63, index, 0x2f]);
  const key = (name: string | Uint8Array) =>
    Buffer.concat([prefix, typeof name === 'string' ? Buffer.from(name, 'latin1') : name]);
  return { store, key, begin: prefix, end: prefixEnd(prefix) };
}

const readWriteCases: readonly ConformanceCase[] = [
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

const atomicCases: readonly ConformanceCase[] = [
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

const limitCases: readonly ConformanceCase[] = [
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
];

async function closeCase(backend: ConformanceBackend): Promise<void> {
  const store = await backend.open();
  const key = bytes('close');
  const isClosed = (error: unknown) => error instanceof KvError && error.code === 'unavailable' && error.reason === 'closed';
  const watch = await store.transact(async (tx) => tx.watch(key));
  const committing = store.transact(async (tx) => tx.set(key, bytes('1')));
  await committing;
  const second = await store.transact(async (tx) => tx.watch(key));
  await watch.fired;
  await Promise.all([store.close(), store.close()]);
  await assert.rejects(second.fired, isClosed);
  await assert.rejects(
    store.transact(async (tx) => tx.set(key, bytes('2'))),
    isClosed,
  );
  await assert.rejects(
    store.read((reads) => reads.get(key)),
    isClosed,
  );
  await assert.rejects(store.check(), isClosed);
}

async function tooOldCase(backend: ConformanceBackend): Promise<void> {
  const clock = new ShiftedClock();
  const store = await backend.open(clock);
  const key = bytes('old');
  try {
    const reading = await once(store, async (tx) => {
      await tx.get(key);
      clock.advance(kvLimits.maxTransactionMs + 1);
      await tx.get(key);
    });
    assert.equal(reading, 'too-old');
    const committing = await once(store, async (tx) => {
      await tx.get(key);
      tx.set(key, bytes('1'));
      clock.advance(kvLimits.maxTransactionMs + 1);
    });
    assert.equal(committing, 'too-old');
    let runs = 0;
    await store.transact(async (tx) => {
      await tx.get(key);
      if (runs++ === 0) clock.advance(kvLimits.maxTransactionMs + 1);
      tx.set(key, bytes('2'));
    });
    assert.equal(runs, 2);
  } finally {
    await store.close();
  }
}
