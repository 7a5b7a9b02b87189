/** What is served of lines in others' shards, and how many probes one look asks for. */
import { describe, expect, it } from 'vitest';
import { VirtualTime } from '../../cluster/testing/virtual-time.js';
import { silentLogger } from '../../ops/telemetry/index.js';
import type { Destinations, LineEntry } from '../../store/queue/index.js';
import { Holdings } from './holdings.js';
import { beginProbes } from './probes.js';
import type { AnyEntry, Sorting } from './sorting.js';
import { WaitingLines } from './waiting-lines.js';

const holdingLimits = { maxClaimsPerDomain: 100, maxClaimsPerSender: 1000, queues: [] };
const pageSize = 200;

describe('lines in the shards of a node that does not serve them', () => {
  it('are served by another in the end, however many there are', async () => {
    const time = new VirtualTime();
    const names = Array.from({ length: 450 }, (_, n) => `d${String(n).padStart(3, '0')}.test`);
    const waiting = new Set(names);
    const queue = {
      lines: async (after: string | undefined, limit: number) => {
        expect(limit).toBe(pageSize);
        return [...waiting].filter((name) => after === undefined || name > after).slice(0, limit);
      },
      lineEntries: async (line: string, shards: readonly number[]): Promise<LineEntry[]> =>
        shards.includes(9) && waiting.has(line) ? [{ line, shard: 9, queueId: `q-${line}`, domain: line, part: 0 }] : [],
    };
    const sorting = {
      work: async (entries: readonly AnyEntry[]) => {
        for (const { domain } of entries) waiting.delete(domain);
        return { won: entries.length, parked: 0 };
      },
    } as unknown as Sorting;
    const limits = { claimBatch: 200, lateAfterSeconds: 30, lineSweepMs: 5000 };
    const lines = new WaitingLines({ queue, clock: time.clock(), sorting, holdings: new Holdings(holdingLimits), limits });
    for (let looks = 0; looks < 1000 && waiting.size > 0; looks++) {
      await lines.look([1, 2, 3], 1000);
      // Nothing is late before its time.
      if (looks < 6) expect(waiting.size).toBe(450);
      await time.advance(5000);
    }
    expect(waiting.size).toBe(0);
  });
});

describe('probes', () => {
  it('of a domain are made by another node after each that failed', async () => {
    const clock = new VirtualTime().clock();
    let failures = 0;
    let asked = 0;
    const destinations = {
      probesDue: () => ['down.test'],
      mayAttempt: () => 'probe',
      health: () => ({ failures, nextProbeAtSeconds: clock.nowMs() / 1000 }),
      winProbe: async () => {
        asked++;
        return false;
      },
    } as unknown as Destinations;
    const queue = { lineEntries: async () => [], claim: async () => [] };
    const asks: Record<string, number> = {};
    const nodeIds = ['a', 'b', 'c'];
    for (failures = 3; failures < 63; failures++) {
      asked = 0;
      for (const nodeId of nodeIds) {
        const before = asked;
        const node = { nodeId, incarnation: 1 };
        await beginProbes({ queue, destinations, node, clock, logger: silentLogger, take: () => {} }, nodeIds);
        asks[nodeId] = (asks[nodeId] ?? 0) + asked - before;
      }
      expect(asked).toBe(1);
    }
    for (const nodeId of nodeIds) expect(asks[nodeId]).toBeGreaterThan(8);
  });

  it('that others have won do not hold up a look', async () => {
    let asked = 0;
    const destinations = {
      probesDue: () => Array.from({ length: 5000 }, (_, n) => `d${n}.test`),
      mayAttempt: () => 'probe',
      health: () => undefined,
      winProbe: async () => {
        asked++;
        return false;
      },
    } as unknown as Destinations;
    const queue = { lineEntries: async () => [], claim: async () => [] };
    const node = { nodeId: 'n', incarnation: 1 };
    const clock = new VirtualTime().clock();
    expect(await beginProbes({ queue, destinations, node, clock, logger: silentLogger, take: () => {} }, [])).toBe(0);
    expect(asked).toBe(50);
  });
});
