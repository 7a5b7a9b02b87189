/** The part of the conformance suite about versions: of commits, of reads, in versionstamped keys, and all of them in one order. */
import assert from 'node:assert/strict';
import { breathe, bytes, type CaseRoom, type ConformanceCase } from './conformance-room.suite.js';
import { type Committed, type KeyValue, keyAfter } from './contract.js';

const stampBytes = 10;

/** A commit as its client saw it: ticks of one counter before it began and after it was acknowledged. */
interface Seen {
  readonly id: number;
  readonly begunAt: number;
  readonly endedAt: number;
  readonly version: bigint;
}

/** Runs `perClient` commits in each of `clients` clients, over all stores; `commit` is told an id. */
async function crowd(
  room: CaseRoom,
  clients: number,
  perClient: number,
  commit: (store: CaseRoom['store'], id: number) => Promise<Committed<unknown>>,
): Promise<Seen[]> {
  const seen: Seen[] = [];
  let ticks = 0;
  const client = async (index: number) => {
    for (let at = 0; at < perClient; at++) {
      const id = index * perClient + at;
      const begunAt = ticks++;
      const { version } = await commit(room.stores[index % room.stores.length]!, id);
      seen.push({ id, begunAt, endedAt: ticks++, version });
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, index) => client(index)));
  return seen;
}

/** Every commit that began after another was acknowledged has the higher version. */
function assertVersionsFollowTime(seen: readonly Seen[]): void {
  const byBegin = [...seen].sort((a, b) => a.begunAt - b.begunAt);
  const byEnd = [...seen].sort((a, b) => a.endedAt - b.endedAt);
  let ended = 0;
  let highest = -1n;
  for (const commit of byBegin) {
    for (; ended < byEnd.length && byEnd[ended]!.endedAt < commit.begunAt; ended++) {
      if (byEnd[ended]!.version > highest) highest = byEnd[ended]!.version;
    }
    assert.ok(commit.version > highest, `version ${commit.version} came after version ${highest} had been acknowledged`);
  }
}

/** The logged ids in the order of their versionstamps, each with the version in its stamp. */
async function logOf(room: CaseRoom): Promise<{ id: number; version: bigint; stamp: string }[]> {
  const rows = await room.store.read((reads) => reads.getRange(room.key('log/'), room.key('log0')));
  const at = room.key('log/').length;
  return rows.map(({ key, value }: KeyValue) => ({
    id: Number(value.toString()),
    version: key.readBigUInt64BE(at),
    stamp: key.subarray(at, at + stampBytes).toString('hex'),
  }));
}

export const orderCases: readonly ConformanceCase[] = [
  [
    'versions of commits and of reads ascend from one client to the next',
    async (room) => {
      let last = -1n;
      for (let at = 0; at < 12; at++) {
        const store = room.stores[at % room.stores.length]!;
        const written = await store.transactVersioned(async (tx) => tx.set(room.key('n'), bytes(String(at))));
        assert.ok(written.version > last, 'a later commit has the higher version');
        const reader = room.stores[(at + 1) % room.stores.length]!;
        const read = await reader.transactVersioned(async (tx) => {
          await tx.get(room.key('n'));
          return tx.readVersion();
        });
        assert.ok(read.value >= written.version, 'a later read has at least the version of an acknowledged commit');
        assert.equal(read.version, read.value, 'a transaction that wrote nothing has the version that it read');
        last = written.version;
      }
    },
  ],
  [
    'a commit has a higher version than everything that it read',
    async (room) => {
      for (let at = 0; at < 8; at++) {
        const store = room.stores[at % room.stores.length]!;
        const { value, version } = await store.transactVersioned(async (tx) => {
          await tx.get(room.key('n'));
          tx.set(room.key('n'), bytes(String(at)));
          return tx.readVersion();
        });
        assert.ok(version > value);
      }
    },
  ],
  [
    'reading at least a version learnt from elsewhere sees what was committed there',
    async (room) => {
      for (let at = 0; at < 8; at++) {
        const { version } = await room.other.transactVersioned(async (tx) => tx.set(room.key('n'), bytes(String(at))));
        const [value, seen] = await room.store.transact(
          async (tx) => [String(await tx.get(room.key('n'))), await tx.readVersion()] as const,
          { atLeastVersion: version },
        );
        assert.equal(value, String(at));
        assert.ok(seen >= version);
        const byRead = await room.store.read((reads) => reads.get(room.key('n')), { atLeastVersion: version });
        assert.equal(String(byRead), String(at));
      }
    },
  ],
  [
    'in a crowd: stamps are those of the versions told, differ, and never go against real time',
    async (room) => {
      // Nobody reads anything, so nothing but the store itself puts these into an order.
      const seen = await crowd(room, 16, 8, (store, id) =>
        store.transactVersioned(async (tx) => tx.setVersionstampedKey(room.key('log/'), bytes('/x'), bytes(String(id)))),
      );
      assertVersionsFollowTime(seen);
      const log = await logOf(room);
      assert.equal(log.length, seen.length);
      assert.equal(new Set(log.map((row) => row.stamp)).size, log.length, 'two commits have one versionstamp');
      const told = new Map(seen.map((commit) => [commit.id, commit.version]));
      for (const row of log) assert.equal(row.version, told.get(row.id), 'the stamp is not that of the version');
    },
  ],
  [
    'in a crowd: who read what another wrote has the higher version and the higher stamp',
    async (room) => {
      const seen = await crowd(room, 8, 6, (store, id) =>
        store.transactVersioned(
          async (tx) => {
            const before = Number((await tx.get(room.key('!n'))) ?? 0);
            tx.set(room.key('!n'), bytes(String(before + 1)));
            tx.set(room.key(`place/${id}`), bytes(String(before)));
            tx.setVersionstampedKey(room.key('log/'), bytes(''), bytes(String(id)));
          },
          { maxAttempts: 1000 },
        ),
      );
      assertVersionsFollowTime(seen);
      const places = await room.store.read((reads) => reads.getMany(seen.map(({ id }) => room.key(`place/${id}`))));
      const ordered = seen.map((commit, at) => ({ ...commit, place: Number(places[at]) })).sort((a, b) => a.place - b.place);
      assert.deepEqual(
        ordered.map((commit) => commit.place),
        ordered.map((_, at) => at),
      );
      assert.deepEqual(
        (await logOf(room)).map((row) => row.id),
        ordered.map((commit) => commit.id),
      );
      for (let at = 1; at < ordered.length; at++) assert.ok(ordered[at]!.version >= ordered[at - 1]!.version);
    },
  ],
  [
    'a follower of the log that goes on behind the last stamp it saw misses nothing',
    async (room) => {
      const total = 60;
      const followed: string[] = [];
      let from = room.key('log/');
      const read = async () => {
        const rows = await room.other.read((reads) => reads.getRange(from, room.key('log0')));
        for (const row of rows) followed.push(row.value.toString());
        const last = rows.at(-1)?.key;
        if (last) from = keyAfter(last);
      };
      let done = false;
      const following = (async () => {
        while (!done) {
          await read();
          await breathe();
        }
        await read();
      })();
      await crowd(room, 6, total / 6, (store, id) =>
        store.transactVersioned(async (tx) => tx.setVersionstampedKey(room.key('log/'), bytes(''), bytes(String(id)))),
      );
      done = true;
      await following;
      // A row that came up behind the place that the follower had reached is in the log, and not in what was followed.
      const log = await logOf(room);
      assert.equal(log.length, total);
      assert.deepEqual(
        followed,
        log.map((row) => String(row.id)),
      );
    },
  ],
];
