import { describe, expect, it } from 'vitest';
import { parseChaosArguments } from './arguments.js';
import { seededRandom } from './run.js';

const parse = (...argv: string[]) => parseChaosArguments(argv, () => 7);

describe('the arguments of npm run chaos', () => {
  it('have defaults', () => {
    expect(parse('--scenario', 'all')).toEqual({
      ...{ scenario: 'all', seconds: 30, harness: undefined, nodes: 3, from: undefined, seed: 7, rate: undefined },
      ...{ json: false, keepsLogs: false },
    });
    expect(parse('--help')).toBeUndefined();
  });

  it('are taken', () => {
    const argv =
      '--scenario drain --seconds 60 --nodes 5 --harness processes --store postgres --seed 3 --rate 200 --json --keep-logs';
    expect(parse(...argv.split(' '))).toEqual({
      ...{ scenario: 'drain', seconds: 60, harness: 'processes', nodes: 5, from: undefined, seed: 3, rate: 200 },
      ...{ json: true, keepsLogs: true },
    });
  });

  it.each([
    [[], /--scenario/],
    [['--scenario', 'all', '--seconds', '3'], /--seconds takes/],
    [['--scenario', 'all', '--seconds', '1e3'], /--seconds takes/],
    [['--scenario', 'all', '--nodes', '1'], /--nodes takes/],
    [['--scenario', 'all', '--store', 'memory'], /--store takes/],
    [['--scenario', 'all', '--harness', 'docker'], /--harness takes/],
    [['--scenario', 'all', '--from', '/nowhere'], /a checkout that is built/],
    [['--scenario', 'all', '--fast'], /--fast/],
    [['all'], /all/],
  ] as [string[], RegExp][])('%j is refused', (argv, sentence) => {
    expect(() => parse(...argv)).toThrow(sentence);
  });
});

describe('a seed', () => {
  it('gives the same numbers again, spread over 0 to 1', () => {
    const draw = (seed: number) => Array.from({ length: 1_000 }, seededRandom(seed));
    expect(draw(5)).toEqual(draw(5));
    expect(draw(5)).not.toEqual(draw(6));
    const mean = draw(5).reduce((sum, value) => sum + value, 0) / 1_000;
    expect(mean).toBeGreaterThan(0.45);
    expect(mean).toBeLessThan(0.55);
    expect(Math.min(...draw(5))).toBeGreaterThanOrEqual(0);
    expect(Math.max(...draw(5))).toBeLessThan(1);
  });
});
