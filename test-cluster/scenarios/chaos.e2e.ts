/** A few faults on three nodes in network namespaces, briefly: what `npm run chaos` plays at length. Without namespaces, on 127.0.0.1, what can be had there. */
import { describe, expect, it } from 'vitest';
import { missingFor, runScenario } from '../chaos/run.js';
import { namespacesMissing } from '../harness/namespaces.js';
import { scenarios } from './chaos/index.js';

const names = ['kill-one', 'partition-peers', 'rolling-restart'];
const seconds = 8;

const missing = namespacesMissing();
const harness = missing === undefined ? 'namespaces' : 'processes';
if (missing !== undefined) process.stderr.write(`chaos on 127.0.0.1 only: ${missing}\n`);

describe('three nodes under load', () => {
  for (const scenario of scenarios.filter(({ name }) => names.includes(name))) {
    const lack = missingFor(scenario, harness);
    if (lack !== undefined) process.stderr.write(`skipped: ${scenario.name} ${lack}\n`);
    it.skipIf(lack !== undefined)(`${scenario.name}: ${scenario.summary}`, async ({ signal }) => {
      const { verdict, timeline } = await runScenario(scenario, { harness, nodes: 3, seconds, seed: 1, signal });
      const story = timeline.map(({ atMs, what }) => `${(atMs / 1000).toFixed(1)} ${what}`).join('\n');
      expect(verdict.violations, story).toEqual([]);
      expect(verdict.localAcknowledged).toBeGreaterThan(10);
      expect(verdict.remoteAcknowledged).toBeGreaterThan(5);
      expect(verdict.flagsAcknowledged).toBeGreaterThan(2);
    });
  }
});
