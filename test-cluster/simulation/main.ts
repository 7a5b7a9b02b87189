/**
 * `npm run sim -- [--seeds N] [--from S] [--seed S] [--broken MISTAKE] [--json]`: runs the simulator. `--detector --hours H`: hunts false verdicts instead. One
 * line of JSON at the end, before it the stories of the first seeds that failed. Exit code 0: nothing is violated; 1: something is; 2: not understood.
 */
import { parseArgs } from 'node:util';
import { type Mistake, mistakes } from './broken.js';
import { HuntSums, RunReport } from './report.js';
import { type RunResult, runSeed } from './run.js';
import { type Order, work } from './workers.js';

const maxStories = 3;
const defaultSeeds = 200;
const defaultHours = 100;
/** Of one order of the hunt. */
const huntHours = 5;

interface Options {
  from: number;
  seeds: number;
  single: number | undefined;
  mistake: Mistake | undefined;
  processes: number | undefined;
  /** Of a hunt; undefined where there is none. */
  hours: number | undefined;
  isOneLine: boolean;
}

function refuse(sentence: string): never {
  process.stderr.write(`${sentence}\n`);
  process.exit(2);
}

function numberOf(name: string, text: string | undefined, least: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) refuse(`--${name} takes a whole number from ${least}, not '${text}'`);
  return value;
}

function parse(args: string[]): Options {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const options = { seeds: text, from: text, seed: text, broken: text, processes: text, hours: text, detector: flag, json: flag };
  let values: ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];
  try {
    ({ values } = parseArgs({ args, options }));
  } catch (error) {
    return refuse((error as Error).message);
  }
  const mistake = mistakes.find((name) => name === values.broken);
  if (values.broken !== undefined && !mistake) refuse(`--broken takes ${mistakes.join(', ')}, not '${values.broken}'`);
  return {
    from: numberOf('from', values.from, 0) ?? 1,
    seeds: numberOf('seeds', values.seeds, 1) ?? defaultSeeds,
    single: numberOf('seed', values.seed, 0),
    mistake,
    processes: numberOf('processes', values.processes, 1),
    hours: values.detector ? (numberOf('hours', values.hours, 1) ?? defaultHours) : undefined,
    isOneLine: values.json ?? false,
  };
}

function* runOrders({ from, seeds, mistake }: Options): Generator<Order> {
  for (let seed = from; seed < from + seeds; seed++) yield { kind: 'run', seed, ...(mistake && { mistake }) };
}

function* huntOrders(from: number, hours: number): Generator<Order> {
  for (let left = hours, seed = from; left > 0; left -= huntHours, seed++)
    yield { kind: 'hunt', seed, hours: Math.min(huntHours, left) };
}

/** Answers whether nothing is wrong. */
async function simulate(options: Options, print: (line: Record<string, unknown>) => void): Promise<boolean> {
  const startMs = performance.now();
  const { single, mistake, processes } = options;
  const report = new RunReport();
  const add = (result: RunResult): boolean => {
    report.add(result);
    if (result.story !== '' && report.failed.length <= maxStories) process.stderr.write(`${result.story}\n\n`);
    // It is enough to have found a mistake once.
    return mistake === undefined || report.violations === 0;
  };
  if (single !== undefined) add(await runSeed({ seed: single, ...(mistake && { mistake }) }));
  else {
    const onAnswer = (answer: object) => 'run' in answer && add(answer.run as RunResult);
    await work({ orders: runOrders(options), onAnswer, ...(processes && { processes }) });
  }
  print(report.line(performance.now() - startMs));
  return report.violations === 0;
}

/** Answers whether nobody was declared dead who lived. */
async function hunt(
  { from, processes }: Options,
  hours: number,
  print: (line: Record<string, unknown>) => void,
): Promise<boolean> {
  const startMs = performance.now();
  const sums = new HuntSums();
  await work({
    orders: huntOrders(from, hours),
    ...(processes && { processes }),
    onAnswer(answer) {
      if ('hunt' in answer) sums.add(answer.hunt);
      return true;
    },
  });
  for (const line of sums.story.slice(0, 20)) process.stderr.write(`${line}\n`);
  print(sums.line(performance.now() - startMs));
  return sums.falseVerdicts === 0;
}

const options = parse(process.argv.slice(2));
const print = (line: Record<string, unknown>) => {
  process.stdout.write(`${JSON.stringify(line, undefined, options.isOneLine ? undefined : 2)}\n`);
};
const isWell = options.hours === undefined ? await simulate(options, print) : await hunt(options, options.hours, print);
process.exitCode = isWell ? 0 : 1;
