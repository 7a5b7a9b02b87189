/** That destinations which are down, paused or slow, and senders with a crowd of mail, cost the others nothing; with the real queue and runner. */
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import {
  type ClaimedDestination,
  createDestinations,
  type Destinations,
  NotAttempted,
  type QueueShare,
  shardOf,
} from '../../store/queue/index.js';
import { HandClock, openBench, startSeconds } from '../../store/queue/test-bench.js';
import { createQueueRunner, type QueueRunner, type QueueRunnerDependencies, type RunnerLimits } from './index.js';

class RunningClock extends HandClock {
  shiftMs = 0;
  readonly #startMs = performance.now();
  override nowMs = () => startSeconds * 1000 + (performance.now() - this.#startMs) + this.shiftMs;
  override monotonicMs = () => performance.now() + this.shiftMs;
}

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface World {
  clock: RunningClock;
  bench: Awaited<ReturnType<typeof openBench>>;
  destinations: Destinations;
  runner: QueueRunner;
  /** Domains of attempts, in order. */
  attempts: string[];
  senders: string[];
  untried: { domain: string; verdict: string; text: string }[];
  /** Domains that no host of answers. */
  dead: Set<string>;
  /** Domains whose hosts don't come to an end. */
  slow: Set<string>;
  delivered: (domain: string) => number;
}

const reply = { code: 0, enhanced: '4.4.1', text: 'Connection refused' };

async function open(limits: Partial<RunnerLimits> = {}, more: Partial<QueueRunnerDependencies> = {}): Promise<World> {
  const clock = new RunningClock();
  const bench = await openBench({ clock });
  const destinations = createDestinations({
    ...bench,
    clock,
    random: systemRandom,
    logger: silentLogger,
    nodeId: bench.node.nodeId,
  });
  const done = new Map<string, number>();
  const world: Omit<World, 'runner'> = {
    clock,
    bench,
    destinations,
    attempts: [],
    senders: [],
    untried: [],
    dead: new Set(),
    slow: new Set(),
    delivered: (domain) => done.get(domain) ?? 0,
  };
  const save = (claimed: ClaimedDestination, status: 'relayed' | 'pending' | 'failed') =>
    bench.kv.transact((tx) =>
      bench.queue.save(tx, claimed, {
        results: claimed.destination.recipients.map(({ address }) => ({ address, status })),
        nextDueAtSeconds: clock.nowMs() / 1000 + 300,
      }),
    );
  const runner = createQueueRunner({
    queue: bench.queue,
    node: bench.node,
    clock,
    random: systemRandom,
    logger: silentLogger,
    destinations,
    limits: { scanIntervalMs: 20, lineSweepMs: 20, ...limits },
    async deliver({ claimed }, signal) {
      const { domain } = claimed.destination;
      world.attempts.push(domain);
      world.senders.push(claimed.message.from);
      if (world.slow.has(domain)) {
        await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
      }
      const isDead = world.dead.has(domain);
      await destinations.report({ domain, result: isDead ? 'unreachable' : 'reached', reply });
      await save(claimed, isDead ? 'pending' : 'relayed');
      if (!isDead) done.set(domain, (done.get(domain) ?? 0) + 1);
    },
    async putOff({ claimed }, error) {
      if (!(error instanceof NotAttempted)) throw error;
      const { verdict, reply } = error;
      world.untried.push({ domain: claimed.destination.domain, verdict, text: reply.text });
      await save(claimed, 'failed');
    },
    ...more,
  });
  closing.push(() => runner.stop());
  return { ...world, runner };
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 12_000 && !(await condition()); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(await condition()).toBe(true);
}

describe('a destination that is down', () => {
  it('costs a few attempts, then probes alone, and is served whole when it is back', async () => {
    const world = await open({ maxDeliveriesPerDomain: 4 });
    const { bench, clock, attempts, dead } = world;
    dead.add('down.test');
    for (let n = 0; n < 300; n++) await bench.put(['down.test']);
    for (let n = 0; n < 30; n++) await bench.put(['up.test']);
    world.runner.start();
    await until(() => world.delivered('up.test') === 30);
    await until(async () => (await bench.queue.counts(startSeconds)).waiting >= 290 && world.runner.size === 0);
    const first = attempts.filter((domain) => domain === 'down.test').length;
    expect(first).toBeLessThanOrEqual(3 + 4);
    // Whoever writes to it now goes where the others wait.
    const born = await bench.put(['down.test'], {}, bench.node);
    expect(born.claimed).toEqual([]);
    for (let probes = 1; probes <= 3; probes++) {
      clock.shiftMs = world.destinations.nextProbeAtMs! - startSeconds * 1000;
      world.runner.wake();
      await until(() => attempts.filter((domain) => domain === 'down.test').length === first + probes);
      await until(() => world.runner.size === 0 && world.destinations.probesDue().length === 0);
    }
    dead.clear();
    clock.shiftMs = world.destinations.nextProbeAtMs! - startSeconds * 1000 + 1000;
    world.runner.wake();
    await until(() => world.delivered('down.test') >= 301 - first);
    clock.shiftMs += 400_000;
    world.runner.wake();
    await until(() => world.delivered('down.test') === 301);
    expect(attempts.filter((domain) => domain === 'down.test')).toHaveLength(301 + first + 3);
    await until(async () => (await bench.rows()).every(([kind]) => kind === 'destinations-generation'));
  });

  it('costs one write for each message that waits for it, in few transactions, and none while it waits', async () => {
    const world = await open({ claimBatch: 200 });
    const { bench, destinations } = world;
    for (let n = 0; n < 3; n++) await destinations.report({ domain: 'down.test', result: 'unreachable', reply });
    for (let n = 0; n < 1000; n++) await bench.put(['down.test']);
    const counts: Record<string, number> = {};
    const { transact } = bench.kv;
    bench.kv.transact = (body, options) => {
      const label = options?.label ?? '';
      counts[label] = (counts[label] ?? 0) + 1;
      return transact.call(bench.kv, body, options) as never;
    };
    world.runner.start();
    await until(async () => (await bench.queue.counts(startSeconds)).waiting === 1000);
    expect(counts).toEqual({ park: expect.any(Number) });
    expect(counts['park']).toBeLessThanOrEqual(10);
    const before = { ...counts };
    for (let n = 0; n < 20; n++) {
      world.runner.wake();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(counts).toEqual(before);
    // Nor does a pause of everything move it to another line.
    await destinations.pause('*', 'op', '');
    for (let n = 0; n < 20; n++) {
      world.runner.wake();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(await bench.queue.lines(undefined, 10)).toEqual(['down.test']);
    expect(counts['park']).toBe(before['park']);
    await destinations.resume('*');
    await destinations.forget('down.test');
    await until(() => world.delivered('down.test') === 1000);
    expect(world.attempts).toHaveLength(1000);
  });

  it('still has its notices and the end of its time when they are due, without an attempt', async () => {
    const world = await open();
    const { bench, clock, dead } = world;
    dead.add('down.test');
    for (let n = 0; n < 3; n++) await world.destinations.report({ domain: 'down.test', result: 'unreachable', reply });
    await bench.put(['down.test'], { expiresAtMs: (startSeconds + 20) * 1000 });
    world.runner.start();
    await until(async () => (await bench.queue.counts(startSeconds)).waiting === 1);
    clock.shiftMs = 20_000;
    world.runner.wake();
    await until(() => world.untried.length === 1);
    expect(world.untried).toEqual([{ domain: 'down.test', verdict: 'deferred', text: 'Connection refused' }]);
    expect(world.attempts).toEqual([]);
  });

  it('is tried all the same when an operator wants one message tried', async () => {
    const world = await open();
    for (let n = 0; n < 3; n++) await world.destinations.report({ domain: 'down.test', result: 'unreachable', reply });
    const { id } = await world.bench.put(['down.test']);
    world.runner.start();
    await until(async () => (await world.bench.queue.counts(startSeconds)).waiting === 1);
    await world.bench.queue.retryNow(id, startSeconds);
    await until(() => world.delivered('down.test') === 1);
    expect(world.destinations.down()).toEqual([]);
  });

  it('nobody writes to any more is forgotten', async () => {
    const world = await open();
    for (let n = 0; n < 3; n++) await world.destinations.report({ domain: 'down.test', result: 'unreachable', reply });
    world.clock.shiftMs = 60_000;
    world.runner.start();
    await until(() => world.destinations.down().length === 0);
    expect((await world.bench.rows()).map(([kind]) => kind)).toEqual(['destinations-generation']);
  });
});

describe('a pause', () => {
  it('of all keeps everything, local mail too, and ends everywhere at once', async () => {
    const world = await open();
    await world.destinations.pause('*', 'op', '');
    for (const domain of ['a.test', 'b.test']) await world.bench.put([domain]);
    const local = [{ domain: 'home.test', isLocal: true, recipients: [{ address: 'x@home.test' }] }];
    await world.bench.put([], { destinations: local });
    world.runner.start();
    await until(async () => (await world.bench.queue.counts(startSeconds)).waiting === 3);
    expect(world.attempts).toEqual([]);
    await world.destinations.resume('*');
    await until(() => world.attempts.length === 3);
  });

  it('takes back what waits in hand', async () => {
    const world = await open({ maxDeliveriesPerDomain: 1 });
    world.slow.add('a.test');
    for (let n = 0; n < 10; n++) await world.bench.put(['a.test']);
    world.runner.start();
    await until(() => world.runner.size === 10);
    await world.destinations.pause('a.test', 'op', '');
    await until(async () => world.runner.size === 1 && (await world.bench.queue.counts(startSeconds)).waiting === 9);
  });
});

describe('a destination that is slow', () => {
  it('fills neither the claims nor the workers of a node: the others go on', async () => {
    const world = await open({ maxClaims: 60, maxClaimsPerDomain: 20, claimBatch: 30, maxRemoteDeliveries: 16 });
    for (const domain of ['slow1.test', 'slow2.test']) {
      world.slow.add(domain);
      for (let n = 0; n < 150; n++) await world.bench.put([domain]);
    }
    for (let n = 0; n < 40; n++) await world.bench.put(['quick.test'], { notBeforeSeconds: startSeconds - 1 });
    world.runner.start();
    await until(() => world.delivered('quick.test') === 40);
    expect(world.runner.size).toBeLessThanOrEqual(40);
    expect((await world.bench.queue.counts(startSeconds + 10)).waiting).toBeGreaterThanOrEqual(200);
    // What is accepted on top of it does not make a detour over a claim.
    expect((await world.bench.put(['slow1.test'], {}, world.bench.node)).claimed).toEqual([]);
    expect((await world.bench.put(['quick.test'], {}, world.bench.node)).claimed).toHaveLength(1);
  });
});

describe('a sender with a crowd of mail', () => {
  it('leaves room in what a node claims for the mail of others', async () => {
    const world = await open({
      maxClaims: 50,
      maxClaimsPerSender: 20,
      claimBatch: 25,
      maxRemoteDeliveries: 20,
      maxDeliveriesPerDomain: 1,
    });
    for (let n = 0; n < 200; n++) {
      world.slow.add(`d${n}.test`);
      await world.bench.put([`d${n}.test`], { from: 'crowd@one.test' });
    }
    await world.bench.put(['single.test'], { from: 'single@one.test' });
    world.runner.setLimits({ maxRemoteDeliveries: 24 });
    world.runner.start();
    await until(() => world.delivered('single.test') === 1);
    expect(world.runner.size).toBeLessThanOrEqual(20);
  });

  it('is served to the end without waiting for anybody to look through the names of lines', async () => {
    const world = await open({ maxClaimsPerSender: 20, maxClaimsPerDomain: 15, claimBatch: 25, lineSweepMs: 3_600_000 });
    for (let n = 0; n < 200; n++) await world.bench.put([n % 2 ? 'many.test' : `d${n}.test`], { from: 'crowd@one.test' });
    world.runner.start();
    // An attempt counts when it begins, a delivery when it is saved.
    await until(() => world.attempts.length === 200 && world.runner.size === 0);
    expect(world.delivered('many.test')).toBe(100);
  });
});

describe('what lies in lines of others', () => {
  it('is taken when nobody takes it', async () => {
    let shares: QueueShare[] = [];
    const world = await open({ lateAfterSeconds: 0 }, { shares: () => shares });
    shares = [{ nodeId: world.bench.node.nodeId }, { nodeId: 'f'.repeat(32) }];
    for (let n = 0; n < 40; n++) await world.bench.put(['a.test']);
    const { entries } = await world.bench.queue.due([...Array(64).keys()], startSeconds, 100);
    await world.bench.queue.park(entries, ({ domain }) => domain);
    expect(new Set(entries.map(({ queueId }) => shardOf(queueId))).size).toBeGreaterThan(10);
    world.runner.start();
    await until(() => world.delivered('a.test') === 40);
  });
});

describe('a message that was cancelled with a report', () => {
  it('is failed with what the operator says, and never tried', async () => {
    const world = await open();
    const cancelReply = { code: 550, enhanced: '5.7.1', text: 'Cancelled' };
    const { id } = await world.bench.put(['a.test'], { notBeforeSeconds: startSeconds + 1000 });
    world.runner.start();
    await world.bench.queue.change(id, { kind: 'cancel', reply: cancelReply }, { nowSeconds: startSeconds });
    await until(() => world.untried.length === 1);
    expect(world.untried).toEqual([{ domain: 'a.test', verdict: 'failed', text: 'Cancelled' }]);
    expect(world.attempts).toEqual([]);
  });
});
