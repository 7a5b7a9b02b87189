import { describe, expect, it } from 'vitest';
import type { Mistake } from './broken.js';
import { type RunResult, runSeed } from './run.js';

/** By which rules each mistake is found; and the first seed that has found it, from which on it is looked for. */
const catching: Record<Mistake, { from: number; rules: string[] }> = {
  lease: { from: 1, rules: ['fenced-effect', 'step-out-of-turn', 'forged-effect'] },
  fence: { from: 1, rules: ['claim-taken-away', 'local-double'] },
  save: { from: 1, rules: ['fenced-save'] },
  claim: { from: 1, rules: ['due-xor-claimed', 'claim-taken-away'] },
  dedup: { from: 20, rules: ['local-double'] },
};
/** A change of the code shifts what happens in each seed; within so many it must be found all the same. */
const maxSeeds = 30;

describe('a run', () => {
  it('of the same seed is the same to the last detail, and of another one is not', async () => {
    const hashes = new Set<string>();
    for (const seed of [3, 17, 23]) {
      const [one, other] = [await runSeed({ seed }), await runSeed({ seed })];
      expect(one.violations).toEqual([]);
      expect(other).toEqual(one);
      hashes.add(one.hash);
    }
    expect(hashes.size).toBe(3);
  });

  it('does what it is for: mail, flags, faults and verdicts', async () => {
    const results: RunResult[] = [];
    for (const seed of [31, 32, 33]) results.push(await runSeed({ seed }));
    const sum = (of: (result: RunResult) => number) => results.reduce((total, result) => total + of(result), 0);
    expect(results.flatMap(({ violations }) => violations)).toEqual([]);
    expect(sum(({ counts }) => counts?.acknowledged ?? 0)).toBeGreaterThan(100);
    expect(sum(({ counts }) => counts?.flags ?? 0)).toBeGreaterThan(10);
    expect(sum(({ faults }) => Object.values(faults).reduce((total, count) => total + count, 0))).toBeGreaterThan(10);
    expect(sum(({ verdicts }) => Object.values(verdicts).reduce((total, count) => total + count, 0))).toBeGreaterThan(0);
  });
});

describe('a mistake is found', () => {
  for (const [mistake, { from, rules }] of Object.entries(catching) as [Mistake, (typeof catching)[Mistake]][]) {
    it(mistake, async () => {
      for (let seed = from; seed < from + maxSeeds; seed++) {
        const { violations, story } = await runSeed({ seed, mistake });
        const found = violations.find(({ rule }) => rules.includes(rule));
        if (!found) continue;
        expect(story).toContain(found.text);
        expect(story).toContain(`npm run sim -- --seed ${seed}`);
        return;
      }
      throw new Error(`none of ${maxSeeds} seeds has found it`);
    });
  }
});
