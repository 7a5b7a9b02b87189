/** `npm run chaos`: scenarios on a cluster of their own, one after another. Exit codes: 0 all well, 1 a violation or a run that could not be judged, 2 usage. */
import { randomInt } from 'node:crypto';
import { namespacesMissing } from '../harness/namespaces.js';
import type { Network } from '../harness/network.js';
import { UsageError } from '../harness/usage.js';
import { scenarios } from '../scenarios/chaos/index.js';
import { type ChaosArguments, parseChaosArguments, usage } from './arguments.js';
import { describe, summaryOf } from './report.js';
import { missingFor, restBetweenRuns, runScenario } from './run.js';
import type { Scenario } from './stage.js';

const say = (sentence: string) => process.stderr.write(`chaos: ${sentence}\n`);

/** `all`, or names with commas between them. */
function chosen(names: string): readonly Scenario[] {
  if (names === 'all') return scenarios;
  return names.split(',').map((name) => {
    const found = scenarios.find((scenario) => scenario.name === name);
    if (!found) throw new UsageError(`there is no scenario '${name}'; there are ${scenarios.map((one) => one.name).join(', ')}`);
    return found;
  });
}

/** What was asked for, or what can be had. Throws a sentence. */
function harnessFor(wanted: Network['kind'] | undefined): Network['kind'] {
  if (wanted === 'processes') return wanted;
  const missing = namespacesMissing();
  if (missing === undefined) return 'namespaces';
  if (wanted === 'namespaces') throw new Error(missing);
  say(`${missing}: nodes run on 127.0.0.1, and only the way to the store can be cut`);
  return 'processes';
}

async function run(args: ChaosArguments, signal: AbortSignal): Promise<number> {
  const harness = harnessFor(args.harness);
  const failed: string[] = [];
  const skipped: string[] = [];
  let played = 0;
  for (const scenario of chosen(args.scenario)) {
    const missing = missingFor(scenario, harness);
    if (missing !== undefined) {
      say(`skipped: ${scenario.name} ${missing}`);
      skipped.push(scenario.name);
      continue;
    }
    if (played++ > 0) await restBetweenRuns();
    if (!args.json) say(`${scenario.name}: ${scenario.summary}`);
    try {
      const result = await runScenario(scenario, { ...args, harness, mailPerSecond: args.rate, signal });
      if (result.verdict.violations.length > 0) failed.push(scenario.name);
      process.stdout.write(args.json ? `${JSON.stringify(summaryOf(result))}\n` : describe(result));
    } catch (error) {
      if (signal.aborted) return 1;
      failed.push(scenario.name);
      const sentence = (error as Error).stack ?? String(error);
      if (args.json) process.stdout.write(`${JSON.stringify({ scenario: scenario.name, ok: false, error: sentence })}\n`);
      else say(`${scenario.name} could not be judged: ${sentence}`);
    }
  }
  if (args.json) process.stdout.write(`${JSON.stringify({ summary: true, ok: failed.length === 0, played, failed, skipped })}\n`);
  else say(failed.length === 0 ? `all well: ${played} played` : `failed: ${failed.join(', ')}`);
  return failed.length === 0 ? 0 : 1;
}

const breaking = new AbortController();
for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  process.on(name, () => {
    // The second time: at once; what is to be removed is removed as the process exits.
    if (breaking.signal.aborted) process.exit(1);
    say('breaking off');
    breaking.abort();
  });
}

try {
  const args = parseChaosArguments(process.argv.slice(2), () => randomInt(1_000_000));
  if (!args) process.stdout.write(`${usage}\n`);
  else if (args.scenario === 'list')
    for (const { name, summary } of scenarios) process.stdout.write(`${name.padEnd(18)} ${summary}\n`);
  else process.exitCode = await run(args, breaking.signal);
} catch (error) {
  if (!(error instanceof Error)) throw error;
  process.stderr.write(`chaos: ${error.message}\n${error instanceof UsageError ? `${usage}\n` : ''}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
