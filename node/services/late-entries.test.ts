import { describe, expect, it } from 'vitest';
import { VirtualTime } from '../../cluster/testing/virtual-time.js';
import type { DueEntry } from '../../store/queue/index.js';
import { LateEntries } from './late-entries.js';

const entry = (queueId: string, dueAtSeconds = 100): DueEntry => ({
  shard: 1,
  dueAtSeconds,
  queueId,
  domain: 'a.example',
  part: 0,
});

function bench() {
  const time = new VirtualTime();
  let lying: DueEntry[] = [];
  const asked: number[] = [];
  const queue = {
    due: async (_shards: readonly number[], nowSeconds: number) => {
      asked.push(nowSeconds);
      return { entries: lying };
    },
  };
  const late = new LateEntries(queue, time.clock(), { lateAfterSeconds: 30, claimBatch: 200 });
  const look = async (...entries: DueEntry[]) => {
    lying = entries;
    return (await late.look([1], 1_000)).map(({ queueId }) => queueId);
  };
  return { time, asked, look };
}

describe('late entries of other nodes', () => {
  it('are taken when they are still there at the next look', async () => {
    const { time, asked, look } = bench();
    expect(await look(entry('a'), entry('b'))).toEqual([]);
    await time.advance(15_000);
    expect(await look(entry('b'), entry('c'))).toEqual(['b']);
    expect(asked).toEqual([970, 970]);
  });

  it('are left alone where somebody works, however long the queue is', async () => {
    const { time, look } = bench();
    for (let round = 0; round < 5; round++) {
      expect(await look(entry(`head${round}`))).toEqual([]);
      await time.advance(15_000);
    }
    // Tried, put off, and due again.
    expect(await look(entry('x', 100))).toEqual([]);
    await time.advance(15_000);
    expect(await look(entry('x', 400))).toEqual([]);
  });

  it('are looked for seldom', async () => {
    const { time, asked, look } = bench();
    for (let round = 0; round < 60; round++) {
      await look(entry('a'));
      await time.advance(1_000);
    }
    expect(asked).toHaveLength(4);
  });
});
