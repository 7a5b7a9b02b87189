/** Sums over many runs, and over many hours of the hunt, as they go into the line of JSON. */
import type { HuntReport } from '../../cluster/testing/false-verdicts.js';
import type { RunResult } from './run.js';

const maxListedSeeds = 50;

export class RunReport {
  seeds = 0;
  violations = 0;
  readonly failed: number[] = [];
  readonly #rules: Record<string, number> = {};
  readonly #verdicts: Record<string, number> = {};
  readonly #faults: Record<string, number> = {};
  readonly #sums: Record<string, number> = {};
  #simulatedMs = 0;

  add(result: RunResult): void {
    this.seeds++;
    this.violations += result.violations.length;
    if (result.violations.length > 0) this.failed.push(result.seed);
    for (const { rule } of result.violations) addTo(this.#rules, { [rule]: 1 });
    addTo(this.#verdicts, result.verdicts);
    addTo(this.#faults, result.faults);
    addTo(this.#sums, { commits: result.commits, ...result.counts });
    this.#simulatedMs += result.simulatedMs;
  }

  line(wallMs: number): Record<string, unknown> {
    return {
      seeds: this.seeds,
      violations: this.violations,
      rules: this.#rules,
      failed: [...this.failed].sort((a, b) => a - b).slice(0, maxListedSeeds),
      simulatedSeconds: Math.round(this.#simulatedMs / 1000),
      wallSeconds: seconds(wallMs),
      verdicts: this.#verdicts,
      faults: this.#faults,
      ...this.#sums,
    };
  }
}

export class HuntSums {
  falseVerdicts = 0;
  readonly story: string[] = [];
  readonly #sums: Record<string, number> = {};

  add({ story, ...counts }: HuntReport): void {
    this.falseVerdicts += counts.falseVerdicts;
    this.story.push(...story);
    addTo(this.#sums, { ...counts });
  }

  line(wallMs: number): Record<string, unknown> {
    return { ...this.#sums, wallSeconds: seconds(wallMs) };
  }
}

const seconds = (ms: number): number => Math.round(ms / 100) / 10;

function addTo(sums: Record<string, number>, more: Record<string, number>): void {
  for (const [name, count] of Object.entries(more)) sums[name] = (sums[name] ?? 0) + count;
}
