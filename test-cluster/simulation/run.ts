/** One seed, one run: a cluster is started, worked on and troubled; then all troubles end, it must come to rest, and everything is held against what was promised. */
import { createHash } from 'node:crypto';
import { runFaults, runSilence } from './faults.js';
import { runImapClients } from './imap-clients.js';
import { type Counts, lastChecks, unrest } from './last-checks.js';
import { politeHabits } from './remote-hosts.js';
import { runSmtpClients } from './smtp-clients.js';
import type { Violation } from './story.js';
import { World, type WorldOptions } from './world.js';

/** Troubles and clients go on for so long. */
const wildMs = 30_000;
/** Within this it must come to rest after that: a term, burials, late looks at others' shards, and all retries. */
const restMs = 90_000;
const hourMs = 3_600_000;

export interface RunResult {
  seed: number;
  violations: Violation[];
  /** For a person; empty without a violation. */
  story: string;
  /** Of every detail; the same for the same seed. */
  hash: string;
  simulatedMs: number;
  verdicts: Record<string, number>;
  faults: Record<string, number>;
  counts: Counts | undefined;
  commits: number;
}

export async function runSeed(options: WorldOptions): Promise<RunResult> {
  const world = new World(options);
  let counts: Counts | undefined;
  try {
    counts = await live(world);
  } catch (error) {
    world.story.violate('broke-off', error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  const { story, time, faults, watch } = world;
  return {
    seed: options.seed,
    violations: story.violations,
    story: story.told(),
    hash: await hashOf(world),
    simulatedMs: time.nowMs,
    verdicts: faults.verdicts,
    faults: faults.faults,
    counts,
    commits: watch.commits,
  };
}

async function live(world: World): Promise<Counts | undefined> {
  const { random, time, story } = world;
  await world.settle();
  const size = 3 + random.fork('size').below(3);
  for (let at = 0; at < size; at++) void world.bringUp();
  // Those who start together must find one another.
  await time.until(() => world.open.length === size, 30_000);
  const endMs = time.nowMs + wildMs;
  let running = 3;
  const ended = () => running--;
  void runFaults(world, endMs).then(ended);
  void runSilence(world, endMs);
  void runSmtpClients(world).then(ended);
  void runImapClients(world).then(ended);
  while (time.nowMs < endMs && story.violations.length === 0) await time.advance(500);
  if (story.violations.length > 0) return undefined;
  world.isClosing = true;
  await time.until(() => running === 0, 60_000);
  makePeace(world);
  return (await comesToRest(world)) ? lastChecks(world) : undefined;
}

/** No trouble any more; and so late that what a wrong clock has put off for an hour is due. */
function makePeace(world: World): void {
  const { nodes, network, story, doomed } = world;
  story.tell('fault', '', 'peace');
  network.heal();
  doomed.clear();
  world.remote.habits = politeHabits;
  world.remote.silent.clear();
  for (const { clock } of nodes) clock.wallShiftMs = hourMs;
  // For those who come later, too: they would be the majority, and put the others' clocks back.
  world.wallShiftMs = hourMs;
}

async function comesToRest(world: World): Promise<boolean> {
  const { time, story } = world;
  const startMs = time.nowMs;
  for (;;) {
    if (story.violations.length > 0) return false;
    // Not waited for: it takes time, which only goes on below.
    if (world.alive.length === 0) void world.bringUp();
    const reason = unrest(world);
    if (reason === undefined) return true;
    if (time.nowMs - startMs > restMs) {
      story.violate('no-rest', `${Math.round((time.nowMs - startMs) / 1000)} s after all troubles ${reason}`, aboutWork(world));
      return false;
    }
    await time.advance(250);
  }
}

/** Ids of the first messages that are still on their way. */
function aboutWork(world: World): string[] {
  return [...world.watch.destinations.keys()].slice(0, 2).map((ref) => ref.slice(0, ref.indexOf('/')));
}

/** Story and store. */
async function hashOf(world: World): Promise<string> {
  const hash = createHash('sha256').update(world.story.hash);
  const rows = await world.eye.kv.read((reads) => reads.getRange(Buffer.of(0), Buffer.of(0xff)));
  for (const { key, value } of rows) hash.update(key).update(value);
  return hash.digest('hex').slice(0, 32);
}
