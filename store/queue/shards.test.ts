import { describe, expect, it } from 'vitest';
import { queueLimits } from './contract.js';
import { allShards, type QueueShare, shardOwners, shardsOf } from './shards.js';

const shares = (members: readonly string[]): QueueShare[] => members.map((nodeId) => ({ nodeId }));
const named = (count: number, from = 0) =>
  Array.from({ length: count }, (_, index) => `${from + index}b1ced0ffee${index * 7919}`);
const moved = (before: readonly string[], after: readonly string[]) =>
  allShards.filter((shard) => before[shard] !== after[shard]);

describe('the shards of the queue', () => {
  it('each have one owner, and all members have as many as any other', () => {
    for (let count = 1; count <= 50; count++) {
      const members = named(count);
      const owned = members.map((member) => shardsOf(member, shares(members)));
      expect(owned.flat().sort((a, b) => a - b)).toEqual([...allShards]);
      for (const one of owned) expect(one.length).toBeLessThanOrEqual(Math.ceil(queueLimits.shards / count));
    }
    expect(shardsOf('stranger', shares(named(3)))).toEqual([]);
    expect(shardOwners([])).toEqual([]);
  });

  it('are the same whoever asks, in whatever order the members are known', () => {
    const members = named(7);
    expect(shardOwners(shares([...members].reverse()))).toEqual(shardOwners(shares(members)));
  });

  it('move little more than the share of whoever leaves', () => {
    let extra = 0;
    const rounds = 40;
    for (let round = 0; round < rounds; round++) {
      const members = named(5, round * 100);
      const before = shardOwners(shares(members));
      const gone = members[round % 5]!;
      const after = shardOwners(shares(members.filter((member) => member !== gone)));
      extra += moved(before, after).filter((shard) => before[shard] !== gone).length;
    }
    // Of 51 that need not move.
    expect(extra / rounds).toBeLessThan(10);
  });

  it('stay with a node that is cut off, and with all others', () => {
    const members = named(4);
    const before = shardOwners(shares(members));
    const cut = members.map((nodeId, index) => (index === 2 ? { nodeId, keptAmong: members } : { nodeId }));
    expect(shardOwners(cut)).toEqual(before);
  });

  it('give a node that is cut off nothing new when another goes or comes', () => {
    const members = named(4);
    const kept = shardsOf(members[2]!, shares(members));
    const cut = (others: string[]): QueueShare[] => [...shares(others), { nodeId: members[2]!, keptAmong: members }];
    const fewer = cut([members[0]!, members[1]!]);
    expect(shardsOf(members[2]!, fewer)).toEqual(kept);
    expect(shardsOf(members[0]!, fewer).length + shardsOf(members[1]!, fewer).length).toBe(queueLimits.shards - kept.length);
    expect(shardsOf(members[2]!, cut([...members.filter((_, index) => index !== 2), 'newcomer']))).toEqual(kept);
  });

  it('are all worked when everybody is cut off from everybody and one is gone', () => {
    const members = named(3);
    const left = members.slice(1).map((nodeId) => ({ nodeId, keptAmong: members }));
    const owning = shardOwners(left);
    expect(owning).toHaveLength(queueLimits.shards);
    expect(new Set(owning)).toEqual(new Set(members.slice(1)));
    // What each had stays where it was.
    const before = shardOwners(shares(members));
    for (const shard of allShards) if (before[shard] !== members[0]) expect(owning[shard]).toBe(before[shard]);
  });

  it('go to the heavier of two that were cut off at different times and had the same', () => {
    const [a, b, c] = named(3) as [string, string, string];
    const split: QueueShare[] = [
      { nodeId: a, keptAmong: [a, c] },
      { nodeId: b, keptAmong: [b, c] },
    ];
    const owning = shardOwners(split);
    expect(new Set(owning)).toEqual(new Set([a, b]));
    expect(shardOwners([...split].reverse())).toEqual(owning);
  });
});
