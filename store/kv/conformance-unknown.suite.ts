/**
 * The part of the conformance suite about commits whose answer is lost (TRAPS 2): the body is told, an idempotent one counts once, and who
 * does not retry learns `commit-unknown` and nothing else.
 */
import assert from 'node:assert/strict';
import { systemClock } from '../../ops/telemetry/index.js';
import { bytes, type CaseRoom, type CommitFaults, everything, fill, once } from './conformance-room.suite.js';
import { KvError, type KvTransaction } from './contract.js';

type UnknownCase = readonly [name: string, run: (room: CaseRoom, faults: CommitFaults) => Promise<void>];

/** Counts under an id that was chosen before; looks for it only where it may be there. Notes what each run was told. */
function countOnce(room: CaseRoom, id: string, told: boolean[]): (tx: KvTransaction) => Promise<void> {
  return async (tx) => {
    told.push(tx.mayHaveCommitted);
    if (tx.mayHaveCommitted && (await tx.get(room.key(`done/${id}`)))) return;
    tx.set(room.key(`done/${id}`), bytes('1'));
    tx.add(room.key('count'), 1n);
  };
}

async function counted(room: CaseRoom): Promise<bigint> {
  return (await room.store.read((reads) => reads.get(room.key('count'))))?.readBigInt64LE() ?? 0n;
}

export const unknownCases: readonly UnknownCase[] = [
  [
    'an idempotent body counts once, whether the commit was applied or lost, and is told that it may have been',
    async (room, faults) => {
      let expected = 0n;
      for (const outcome of ['applied', 'lost', 'applied', 'lost'] as const) {
        const told: boolean[] = [];
        await faults.makeNextCommitUnknown(room.store, outcome);
        await room.store.transact(countOnce(room, `${expected}`, told));
        assert.equal(await counted(room), ++expected, outcome);
        if (!faults.findsOut) assert.deepEqual(told, [false, true], outcome);
        else assert.ok(told[0] === false && told.slice(1).every(Boolean));
      }
    },
  ],
  [
    'who does not retry learns that it is unknown; what was applied is there as a whole',
    async (room, faults) => {
      for (const outcome of ['applied', 'lost'] as const) {
        await room.store.transact(async (tx) => tx.clearRange(room.begin, room.end));
        await faults.makeNextCommitUnknown(room.store, outcome);
        const result = await once(room.store, async (tx) => {
          tx.set(room.key('a'), bytes('1'));
          tx.set(room.key('b'), bytes('1'));
        });
        if (!faults.findsOut) assert.equal(result, 'commit-unknown');
        const found = await settledState(room);
        assert.equal(found, outcome === 'applied' || result === 'done' ? 'a=1 b=1' : '', outcome);
        // Whatever a backend finds out, it must not deny what was applied.
        if (outcome === 'applied') assert.ok(['done', 'commit-unknown'].includes(result), result);
      }
    },
  ],
  [
    'the first run is never told that it may have committed, nor is one after a conflict',
    async (room, faults) => {
      const told: boolean[] = [];
      await room.store.transact(async (tx) => {
        told.push(tx.mayHaveCommitted);
        await tx.get(room.key('n'));
        if (told.length === 1) await fill(room, 'n=1', room.other);
        tx.set(room.key('mine'), bytes('1'));
      });
      assert.deepEqual(told, [false, false]);
      // Nothing of an earlier transaction sticks to a later one.
      await faults.makeNextCommitUnknown(room.store, 'applied');
      await room.store.transact(countOnce(room, 'x', []));
      const after: boolean[] = [];
      await room.store.transact(countOnce(room, 'y', after));
      assert.deepEqual(after, [false]);
    },
  ],
  [
    'once it may have committed, every later run is told so, also after a conflict',
    async (room, faults) => {
      const told: boolean[] = [];
      await faults.makeNextCommitUnknown(room.store, 'lost');
      await room.store.transact(async (tx) => {
        told.push(tx.mayHaveCommitted);
        await tx.get(room.key('n'));
        if (told.length === 2) await room.other.transact(async (other) => other.set(room.key('n'), bytes('1')));
        tx.set(room.key('mine'), bytes('1'));
      });
      if (faults.findsOut && told.length === 1) return;
      assert.deepEqual(told, [false, true, true]);
    },
  ],
  [
    'a body that fails after an unknown commit does not hide that it may have happened',
    async (room, faults) => {
      let runs = 0;
      await faults.makeNextCommitUnknown(room.store, 'applied');
      const failing = room.store.transact(
        async (tx) => {
          runs++;
          await tx.get(room.key('n'));
          tx.set(room.key('a'), bytes('1'));
          if (runs > 1) await fill(room, `n=${runs}`, room.other);
        },
        { maxAttempts: 3 },
      );
      if (faults.findsOut) await failing.catch(() => {});
      else await assert.rejects(failing, (error) => error instanceof KvError && error.code === 'commit-unknown');
      assert.equal((await settledState(room)).split(' ')[0], 'a=1');
    },
  ],
  [
    'a crowd through lost answers: every id counts once',
    async (room, faults) => {
      const clients = 8;
      const client = async (id: number) => {
        for (let at = 0; at < 4; at++) await room.store.transact(countOnce(room, `${id}/${at}`, []));
      };
      const running = Promise.all(Array.from({ length: clients }, (_, id) => client(id)));
      let over = false;
      void running.finally(() => (over = true)).catch(() => {});
      for (let at = 0; at < 6 && !over; at++) {
        await faults.makeNextCommitUnknown(room.store, at % 2 === 0 ? 'applied' : 'lost');
        await systemClock.sleep(5);
      }
      await running;
      // One that is still armed must not hit the next case.
      await room.store.transact(countOnce(room, 'last', []));
      assert.equal(await counted(room), BigInt(clients * 4 + 1));
    },
  ],
  [
    'a commit that lost its answer never comes true later, behind one that was acknowledged',
    async (room, faults) => {
      for (let at = 0; at < 6; at++) {
        await faults.makeNextCommitUnknown(room.store, at % 2 === 0 ? 'lost' : 'applied');
        await once(room.store, async (tx) => {
          await tx.get(room.key('n'));
          tx.set(room.key('n'), bytes(`unknown${at}`));
        });
        // It read what this one writes: so it is before, or it is not at all.
        await room.other.transact(async (tx) => {
          await tx.get(room.key('n'));
          tx.set(room.key('n'), bytes(`known${at}`));
        });
        for (let look = 0; look < 5; look++) {
          assert.equal(String(await room.store.read((reads) => reads.get(room.key('n')))), `known${at}`);
          await systemClock.sleep(2);
        }
      }
    },
  ],
];

/** What is there, when nothing of this client can still be on its way: a conflicting write has been fitted in behind it. */
async function settledState(room: CaseRoom): Promise<string> {
  await room.store.transact(async (tx) => {
    await tx.getRange(room.begin, room.end);
    tx.addWriteConflictRange(room.begin, room.end);
  });
  return everything(room);
}
