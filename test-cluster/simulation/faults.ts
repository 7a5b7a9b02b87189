/** What may go wrong in a run, and the plan that a seed makes of it: when what begins, whom it hits and for how long; up to three things at once. */

import type { SimulatedNode } from './node.js';
import type { CommitFate } from './observed-database.js';
import type { SeededRandom } from './random.js';
import { politeHabits, remoteDomains } from './remote-hosts.js';
import type { World } from './world.js';

/** A fault that has begun. */
interface Begun {
  what: string;
  lastsMs: number;
  end?(): void;
}

/** Answers nothing where there is nobody to hit. */
type Fault = (world: World, random: SeededRandom) => Begun | undefined;

const most = 3;
const hourMs = 3_600_000;

/** The plan of a whole run; resolves when the last fault is over. */
export async function runFaults(world: World, untilMs: number): Promise<void> {
  const random = world.random.fork('faults');
  const underWay = new Set<Promise<void>>();
  // Some runs are quiet, some are wild.
  const meanGapMs = random.between(800, 4_000);
  while (world.time.nowMs < untilMs) {
    await world.clock.sleep(random.between(0.3, 1.7) * meanGapMs);
    if (underWay.size >= most || world.time.nowMs >= untilMs) continue;
    const name = pickFault(random);
    const begun = faults[name]!.begin(world, random);
    if (!begun) continue;
    world.faults.faults[name] = (world.faults.faults[name] ?? 0) + 1;
    const gossipWell = faults[name]!.isGossip ? world.faults.gossipTrouble() : undefined;
    world.story.tell('fault', '', `${begun.what}, for ${Math.round(begun.lastsMs)} ms`);
    const lastsMs = Math.min(begun.lastsMs, Math.max(0, untilMs - world.time.nowMs));
    const over = world.clock.sleep(lastsMs).then(() => {
      begun.end?.();
      gossipWell?.();
      if (begun.end) world.story.tell('fault', '', `over: ${begun.what}`);
      underWay.delete(over);
    });
    underWay.add(over);
  }
  await Promise.all(underWay);
}

function pickFault(random: SeededRandom): string {
  let place = random.float() * totalWeight;
  for (const [name, { weight }] of Object.entries(faults)) if ((place -= weight) < 0) return name;
  return 'crash';
}

/** At least one node is left that works. */
function victim(world: World, random: SeededRandom): SimulatedNode | undefined {
  const serving = world.nodes.filter((node) => node.stage === 'serving' && !node.isDead);
  const well = serving.filter(({ clock, isFenced }) => !clock.isPaused && !isFenced);
  return well.length >= 2 ? random.pick(well) : undefined;
}

function startAgain(world: World, random: SeededRandom): void {
  void world.clock.sleep(random.between(500, 12_000)).then(() => world.bringUp());
}

const crash: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  node.die();
  startAgain(world, random);
  return { what: `${node.name} is killed`, lastsMs: 0 };
};

/** Right before or right after one of its commits, whatever that is. */
const crashAtCommit: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  const fate: CommitFate = random.chance(0.5) ? 'dies-before' : 'dies-after';
  const skipped = random.below(12);
  world.doom(node, fate, skipped);
  startAgain(world, random);
  return { what: `${node.name} ${fate.replace('-', ' ')} its commit number ${skipped + 1} from now`, lastsMs: 0 };
};

function pauseNode(world: World, node: SimulatedNode): () => void {
  const over = world.faults.trouble(node, 'paused');
  node.clock.isPaused = true;
  return () => {
    over();
    if (!node.isDead) node.clock.isPaused = false;
  };
}

const pause: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  const lastsMs = world.timing.termMs * random.between(0.2, 2.2);
  return { what: `${node.name} stands still`, lastsMs, end: pauseNode(world, node) };
};

const shortPause: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  return {
    what: `${node.name} stands still shortly`,
    lastsMs: world.faults.harmlessPauseMs * random.between(0.2, 0.99),
    end: pauseNode(world, node),
  };
};

/** Whoever breaks this node's fence dies of it, before its claims are free; and the node wakes up. */
const buriedAlive: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  const wake = pauseNode(world, node);
  world.whenFenced.set(node.nodeId, (by) => {
    const burier = world.nodes.find(({ name }) => name === by);
    if (burier && world.alive.length > 2) {
      world.doomed.set(by, 'dies-after');
      startAgain(world, random);
    }
    void world.clock.sleep(random.chance(0.5) ? random.between(0, 400) : random.between(0, 4_000)).then(wake);
  });
  return { what: `${node.name} stands still, and whoever buries it dies at that`, lastsMs: world.timing.termMs * 1.8, end: wake };
};

const cutPair: Fault = (world, random) => {
  const [one, other] = random.shuffled(world.alive);
  if (!one || !other) return undefined;
  world.network.cutBoth(one.nodeId, other.nodeId);
  return {
    what: `no gossip between ${one.name} and ${other.name}`,
    lastsMs: random.between(500, 15_000),
    end: () => world.network.healBoth(one.nodeId, other.nodeId),
  };
};

/** Cuts between everybody of the one and everybody of the other side; `isOneWay`: nothing comes from the one to the other. */
function cutSides(world: World, one: readonly SimulatedNode[], other: readonly SimulatedNode[], isOneWay = false): () => void {
  const pairs = one.flatMap((from) => other.map((to) => [from.nodeId, to.nodeId] as const));
  for (const [from, to] of pairs) isOneWay ? world.network.cut(from, to) : world.network.cutBoth(from, to);
  return () => {
    for (const [from, to] of pairs) world.network.healBoth(from, to);
  };
}

const names = (nodes: readonly SimulatedNode[]): string => nodes.map(({ name }) => name).join(' ');

const halves: Fault = (world, random) => {
  const all = random.shuffled(world.alive);
  if (all.length < 2) return undefined;
  const middle = Math.ceil(all.length / 2);
  const [one, other] = [all.slice(0, middle), all.slice(middle)];
  const isOneWay = random.chance(0.3);
  const what = `no gossip from ${names(one)} to ${names(other)}${isOneWay ? '' : ', nor back'}`;
  return { what, lastsMs: random.between(1_000, 15_000), end: cutSides(world, one, other, isOneWay) };
};

const isolation: Fault = (world, random) => {
  const [one, ...others] = random.shuffled(world.alive);
  if (!one || others.length === 0) return undefined;
  const way = random.below(3);
  const end =
    way === 0
      ? cutSides(world, [one], others)
      : way === 1
        ? cutSides(world, [one], others, true)
        : cutSides(world, others, [one], true);
  const what = [`${one.name} is cut off from gossip`, `nobody hears ${one.name}`, `${one.name} hears nobody`][way]!;
  return { what, lastsMs: random.between(1_000, 15_000), end };
};

const silence: Fault = (world, random) => {
  const all = world.alive;
  return { what: 'no gossip at all', lastsMs: random.between(1_000, 15_000), end: cutSides(world, all, all) };
};

const flappingLink: Fault = (world, random) => {
  const [one, other] = random.shuffled(world.alive);
  if (!one || !other) return undefined;
  const periodMs = random.between(100, 1_200);
  let isOver = false;
  const flap = async () => {
    while (!isOver) {
      world.network.cutBoth(one.nodeId, other.nodeId);
      await world.clock.sleep(periodMs);
      world.network.healBoth(one.nodeId, other.nodeId);
      await world.clock.sleep(periodMs);
    }
  };
  void flap();
  const end = () => {
    isOver = true;
    world.network.healBoth(one.nodeId, other.nodeId);
  };
  return { what: `the link between ${one.name} and ${other.name} comes and goes`, lastsMs: random.between(3_000, 15_000), end };
};

const badNetwork: Fault = (world, random) => {
  const { faults } = world.network;
  const before = { ...faults };
  const now = {
    loss: random.between(0.01, 0.25),
    doubling: random.between(0, 0.3),
    maxDelayMs: random.between(5, world.timing.gossipHeartbeatMs),
  };
  Object.assign(faults, now);
  const told = `gossip loses ${Math.round(now.loss * 100)} %, takes up to ${Math.round(now.maxDelayMs)} ms`;
  return { what: told, lastsMs: random.between(2_000, 20_000), end: () => Object.assign(faults, before) };
};

const outageOfOne: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  const over = world.faults.trouble(node, 'store');
  world.faults.setOutage(node, 'alone', true);
  return {
    what: `${node.name} can't reach the store`,
    lastsMs: world.timing.termMs * random.between(0.05, 1.6),
    end: () => {
      over();
      world.faults.setOutage(node, 'alone', false);
    },
  };
};

/** Keeps everybody from writing, so nobody may be found dead for it. */
const outageOfAll: Fault = (world, random) => {
  world.faults.setOutageOfAll(true);
  const lastsMs = world.timing.termMs * random.between(0.05, 1.6);
  return { what: 'the store is down for all', lastsMs, end: () => world.faults.setOutageOfAll(false) };
};

const slowStore: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  const nodes = random.chance(0.3) ? world.alive : [node];
  const maxMs = random.pick([20, 60, 250, 900]);
  // A heartbeat is some three operations, and so is a look.
  const isHarmless = maxMs * 8 < world.timing.standstillMs / 2;
  const overs = isHarmless ? [] : nodes.map((one) => world.faults.trouble(one, 'store'));
  for (const { name } of nodes) world.faults.slow.set(name, { minMs: maxMs / 20, maxMs });
  const end = () => {
    for (const over of overs) over();
    for (const { name } of nodes) world.faults.slow.delete(name);
  };
  return { what: `the store takes up to ${maxMs} ms for ${names(nodes)}`, lastsMs: random.between(2_000, 12_000), end };
};

const troubledCommits: Fault = (world, random) => {
  const nodes = random.chance(0.5) ? world.alive : [victim(world, random)].filter((node) => node !== undefined);
  if (nodes.length === 0) return undefined;
  const now = {
    conflict: random.chance(0.5) ? random.between(0, 0.3) : 0,
    commitUnknownApplied: random.chance(0.7) ? random.between(0, 0.25) : 0,
    commitUnknownLost: random.chance(0.5) ? random.between(0, 0.2) : 0,
  };
  for (const { parts } of nodes) Object.assign(parts.kv.faults, now);
  const end = () => {
    for (const { parts } of nodes) Object.assign(parts.kv.faults, { conflict: 0, commitUnknownApplied: 0, commitUnknownLost: 0 });
  };
  const shares = Object.values(now).map((share) => Math.round(share * 100));
  return {
    what: `commits of ${names(nodes)} conflict, or stay unknown (${shares.join('/')} %)`,
    lastsMs: random.between(2_000, 15_000),
    end,
  };
};

const clockJump: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  node.clock.wallShiftMs = random.pick([-hourMs, 0, hourMs]);
  return { what: `${node.name}'s clock jumps to ${node.clock.wallShiftMs / hourMs} h`, lastsMs: 0 };
};

const drain: Fault = (world, random) => {
  const node = victim(world, random);
  if (!node) return undefined;
  node.drain('an operator wants it');
  startAgain(world, random);
  return { what: `${node.name} is drained`, lastsMs: 0 };
};

const join: Fault = (world) => {
  if (world.alive.length >= 6) return undefined;
  void world.bringUp();
  return { what: 'another node joins', lastsMs: 0 };
};

const rudePeers: Fault = (world, random) => {
  const before = world.remote.habits;
  world.remote.habits = {
    busy: random.between(0, 0.3),
    putsOff: random.between(0, 0.3),
    refuses: random.between(0, 0.1),
    hangsUp: random.between(0, 0.3),
    maxReplyMs: random.pick([100, 1_000, 8_000]),
  };
  const end = () => {
    world.remote.habits = world.isClosing ? politeHabits : before;
  };
  return { what: 'remote hosts are rude', lastsMs: random.between(3_000, 20_000), end };
};

/** `isGossip`: it keeps gossip from somebody. */
const faults: Record<string, { weight: number; begin: Fault; isGossip?: true }> = {
  crash: { weight: 8, begin: crash },
  'crash-at-commit': { weight: 10, begin: crashAtCommit },
  pause: { weight: 10, begin: pause },
  'short-pause': { weight: 6, begin: shortPause },
  'buried-alive': { weight: 5, begin: buriedAlive },
  'cut-pair': { weight: 4, begin: cutPair, isGossip: true },
  halves: { weight: 5, begin: halves, isGossip: true },
  isolation: { weight: 7, begin: isolation, isGossip: true },
  silence: { weight: 4, begin: silence, isGossip: true },
  'flapping-link': { weight: 3, begin: flappingLink, isGossip: true },
  'bad-network': { weight: 6, begin: badNetwork, isGossip: true },
  'outage-of-one': { weight: 7, begin: outageOfOne },
  'outage-of-all': { weight: 3, begin: outageOfAll },
  'slow-store': { weight: 6, begin: slowStore },
  'troubled-commits': { weight: 12, begin: troubledCommits },
  'clock-jump': { weight: 4, begin: clockJump },
  drain: { weight: 5, begin: drain },
  join: { weight: 4, begin: join },
  'rude-peers': { weight: 8, begin: rudePeers },
};

const totalWeight = Object.values(faults).reduce((sum, { weight }) => sum + weight, 0);

/** Beside all faults: for a while nobody answers for one of the domains, so that the cluster holds it for down; then somebody does again. */
export async function runSilence(world: World, endMs: number): Promise<void> {
  const random = world.random.fork('silence');
  const { silent, clock } = world.remote;
  const domain = random.pick([...remoteDomains]);
  await clock.sleep(random.between(1_000, 10_000));
  silent.add(domain);
  world.story.tell('fault', '', `${domain} does not answer`);
  await clock.sleep(Math.max(0, Math.min(random.between(8_000, 20_000), endMs - world.time.nowMs)));
  silent.delete(domain);
  world.story.tell('fault', '', `${domain} answers again`);
}
