import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { KvError } from '../../store/kv/index.js';
import type { DeliveryJob } from '../mailflow/types.js';
import { DeliveryLanes } from './delivery-lanes.js';
import { defaultRunnerLimits, type RunnerLimits } from './queue-runner.js';

const remoteJob = (queueId: string): DeliveryJob =>
  ({
    claimed: {
      message: { id: queueId, sizeBytes: 10 },
      destination: { queueId, domain: `${queueId}.test`, part: 0, isLocal: false },
    },
  }) as unknown as DeliveryJob;

describe('delivery lanes', () => {
  it('end many deliveries by one signal, and Node does not take their listeners for a leak', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    const lanes = new DeliveryLanes({
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      limits: defaultRunnerLimits,
      deliver: (_job, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true })),
      onFault: async () => {},
      mayStart: () => true,
      onDone: () => {},
    });
    for (let at = 0; at < 30; at++) lanes.add(remoteJob(`q${at}`));
    lanes.pump();
    expect(lanes.running).toBe(30);
    lanes.abort();
    await lanes.idle();
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });
});

interface Kind {
  domain?: string;
  sender?: number;
  priority?: number;
  queueName?: string;
}

function job(queueId: string, { domain = 'a.test', sender = 1, priority = 0, queueName }: Kind = {}): DeliveryJob {
  const traits = { isLocal: false, isExpress: priority > 0, senderHash: sender, queueName: queueName ?? '' };
  return {
    claimed: {
      message: { id: queueId, sizeBytes: 10, priority, queueName },
      destination: { queueId, domain, part: 0, isLocal: false, traits },
    },
  } as unknown as DeliveryJob;
}

/** Lanes whose deliveries end when they are told to. */
function openLanes(limits: Partial<RunnerLimits>, maxConcurrentTo?: (domain: string) => number) {
  const started: string[] = [];
  const running = new Map<string, () => void>();
  const lanes = new DeliveryLanes({
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    limits: { ...defaultRunnerLimits, ...limits },
    deliver: ({ claimed }) => {
      started.push(claimed.message.id);
      return new Promise((resolve) => running.set(claimed.message.id, resolve));
    },
    onFault: async () => {},
    maxConcurrentTo,
    mayStart: () => true,
    onDone: () => {},
  });
  const end = async (id: string) => {
    running.get(id)!();
    running.delete(id);
    await new Promise((resolve) => setImmediate(resolve));
  };
  const endOne = () => end(running.keys().next().value!);
  return { lanes, started, running, end, endOne };
}

describe('turns', () => {
  it('go round among the senders of a destination', async () => {
    const { lanes, started, endOne } = openLanes({ maxDeliveriesPerDomain: 1 });
    for (let n = 0; n < 100; n++) lanes.add(job(`crowd${n}`));
    lanes.add(job('single', { sender: 2 }));
    lanes.pump();
    for (let n = 0; n < 3; n++) await endOne();
    expect(started.indexOf('single')).toBeLessThanOrEqual(2);
  });

  it('go round among destinations', async () => {
    const { lanes, started, endOne } = openLanes({ maxRemoteDeliveries: 1 });
    for (let n = 0; n < 100; n++) lanes.add(job(`crowd${n}`));
    lanes.add(job('single', { domain: 'b.test' }));
    lanes.pump();
    for (let n = 0; n < 3; n++) await endOne();
    expect(started.indexOf('single')).toBeLessThanOrEqual(2);
  });

  it('favour priority three times of four', async () => {
    const { lanes, started, endOne } = openLanes({ maxRemoteDeliveries: 1 });
    for (let n = 0; n < 20; n++) lanes.add(job(`n${n}`));
    for (let n = 0; n < 20; n++) lanes.add(job(`p${n}`, { priority: 2 }));
    lanes.pump();
    for (let n = 0; n < 15; n++) await endOne();
    expect(started.filter((id) => id.startsWith('p'))).toHaveLength(12);
  });

  it('keep virtual queues to their workers, and the others moving', async () => {
    const { lanes, running, endOne } = openLanes({ queues: [{ name: 'bulk', maxConcurrentDeliveries: 2 }] });
    for (let n = 0; n < 50; n++) lanes.add(job(`b${n}`, { domain: `d${n}.test`, queueName: 'bulk' }));
    lanes.add(job('other', { domain: 'd0.test' }));
    lanes.pump();
    expect([...running.keys()].filter((id) => id.startsWith('b'))).toHaveLength(2);
    expect(running.has('other')).toBe(true);
    for (let n = 0; n < 50; n++) await endOne();
    await endOne();
    expect(lanes.size).toBe(0);
  });

  it('leave workers for a quick destination when several slow ones have all that they may', async () => {
    const { lanes, started, running, end } = openLanes({ maxRemoteDeliveries: 40 });
    for (let d = 0; d < 7; d++) for (let n = 0; n < 20; n++) lanes.add(job(`s${d}-${n}`, { domain: `s${d}.test` }));
    lanes.pump();
    expect(running.size).toBeLessThan(40);
    for (let n = 0; n < 30; n++) lanes.add(job(`quick${n}`, { domain: 'quick.test' }));
    lanes.pump();
    for (let n = 0; n < 30; n++) await end([...running.keys()].find((id) => id.startsWith('quick'))!);
    expect(started.filter((id) => id.startsWith('quick'))).toHaveLength(30);
  });

  it('heed what a destination bears at present', () => {
    const { lanes, running } = openLanes({}, (domain) => (domain === 'a.test' ? 2 : 100));
    for (let n = 0; n < 20; n++) lanes.add(job(`a${n}`));
    for (let n = 0; n < 20; n++) lanes.add(job(`b${n}`, { domain: 'b.test' }));
    lanes.pump();
    expect([...running.keys()].filter((id) => id.startsWith('a'))).toHaveLength(2);
    expect([...running.keys()].filter((id) => id.startsWith('b'))).toHaveLength(10);
  });

  it('give back what is asked for, and count what is left', async () => {
    const { lanes, endOne } = openLanes({ maxDeliveriesPerDomain: 1, maxClaimsPerDomain: 10 });
    for (let n = 0; n < 10; n++) lanes.add(job(`a${n}`, { sender: n % 3 }));
    lanes.add(job('b', { domain: 'b.test' }));
    lanes.pump();
    expect(lanes.holdings.roomOf('a.test')).toBe(0);
    const taken = lanes.takeWaitingOf(({ destination }) => destination.domain === 'a.test');
    expect(taken).toHaveLength(9);
    expect(lanes.holdings.roomOf('a.test')).toBe(9);
    await endOne();
    await endOne();
    expect(lanes.size).toBe(0);
    expect(lanes.holdings.roomOf('a.test')).toBe(10);
  });
});

/** Lanes whose deliveries get their answer, and are saved, when they are told to. */
function openAnswering(limits: Partial<RunnerLimits>) {
  const asking = new Map<string, () => void>();
  const saving = new Map<string, { resolve(): void; reject(error: Error): void }>();
  const left: string[] = [];
  const lanes = new DeliveryLanes({
    clock: { ...systemClock, setTimer: (_delayMs, run) => systemClock.setTimer(0, run) },
    random: systemRandom,
    logger: silentLogger,
    limits: { ...defaultRunnerLimits, ...limits },
    deliver: async ({ claimed: { message }, onAnswered }) => {
      await new Promise<void>((resolve) => asking.set(message.id, resolve));
      asking.delete(message.id);
      const saved = new Promise<void>((resolve, reject) => saving.set(message.id, { resolve, reject }));
      onAnswered?.();
      await saved;
    },
    onFault: async () => {},
    mayStart: () => true,
    onDone: ({ message }) => left.push(message.id),
  });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const answer = async (id: string) => {
    asking.get(id)!();
    await turn();
  };
  const save = async (id: string, error?: Error) => {
    const { resolve, reject } = saving.get(id)!;
    saving.delete(id);
    if (error) reject(error);
    else resolve();
    await turn();
    await turn();
  };
  const answerAll = async () => {
    for (let before = -1; asking.size > 0 && saving.size !== before; ) {
      before = saving.size;
      for (const id of [...asking.keys()]) await answer(id);
    }
  };
  return { lanes, asking, saving, left, answer, save, answerAll };
}

describe('a delivery that has got its answer', () => {
  it('leaves its place to the next one of its domain, and no more than may run are asked at a time', async () => {
    const { lanes, asking, saving, answer, save } = openAnswering({ maxDeliveriesPerDomain: 2 });
    for (let n = 0; n < 6; n++) lanes.add(job(`a${n}`));
    lanes.pump();
    expect([...asking.keys()]).toEqual(['a0', 'a1']);
    await answer('a0');
    expect([...asking.keys()]).toEqual(['a1', 'a2']);
    expect([lanes.size, lanes.running]).toEqual([6, 3]);
    await save('a0');
    // The end of the saving gives no second place.
    expect([...asking.keys()]).toEqual(['a1', 'a2']);
    expect([lanes.size, saving.size]).toEqual([5, 0]);
  });

  it('leaves its worker of a virtual queue, too', async () => {
    const { lanes, asking, answer } = openAnswering({ queues: [{ name: 'bulk', maxConcurrentDeliveries: 1 }] });
    for (let n = 0; n < 3; n++) lanes.add(job(`b${n}`, { queueName: 'bulk' }));
    lanes.pump();
    await answer('b0');
    expect([...asking.keys()]).toEqual(['b1']);
  });

  it('is one of a bounded number that are not saved yet', async () => {
    const { lanes, asking, saving, save, answerAll } = openAnswering({ maxRemoteDeliveries: 8, maxUnsavedDeliveries: 3 });
    for (let n = 0; n < 40; n++) lanes.add(job(`d${n}`, { domain: `d${n}.test` }));
    lanes.pump();
    expect(asking.size).toBe(8);
    await answerAll();
    expect([asking.size, saving.size]).toEqual([0, 11]);
    await save(saving.keys().next().value!);
    expect(asking.size).toBe(1);
    for (let n = 0; n < 200 && lanes.size > 0; n++) {
      await answerAll();
      for (const id of [...saving.keys()]) await save(id);
    }
    expect([lanes.size, lanes.running]).toEqual([0, 0]);
  });

  it('has as many beside it as may run, where few may', async () => {
    const { lanes, saving, answerAll } = openAnswering({ maxRemoteDeliveries: 1 });
    for (let n = 0; n < 5; n++) lanes.add(job(`d${n}`, { domain: `d${n}.test` }));
    lanes.pump();
    await answerAll();
    expect(saving.size).toBe(2);
  });

  it('is not handed back, and waited for at the end', async () => {
    const { lanes, answer, save } = openAnswering({ maxRemoteDeliveries: 1, maxUnsavedDeliveries: 0 });
    lanes.add(job('a'));
    lanes.add(job('b', { domain: 'b.test' }));
    lanes.pump();
    await answer('a');
    expect(lanes.takeWaitingOf(() => true).map(({ message }) => message.id)).toEqual(['b']);
    expect(lanes.takeWaiting()).toEqual([]);
    let isIdle = false;
    const idle = lanes.idle().then(() => {
      isIdle = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(isIdle).toBe(false);
    await save('a');
    await idle;
  });

  it('comes back into its line when the store keeps it from being saved, and takes one place again', async () => {
    const { lanes, asking, saving, left, answer, save } = openAnswering({ maxRemoteDeliveries: 1, maxUnsavedDeliveries: 1 });
    for (const id of ['a', 'b', 'c']) lanes.add(job(id));
    lanes.pump();
    await answer('a');
    await save('a', new KvError('unavailable', 'away', 'outage'));
    for (let n = 0; n < 50; n++) await new Promise((resolve) => setTimeout(resolve, 1));
    expect([...asking.keys()]).toEqual(['b']);
    expect(lanes.size).toBe(3);
    for (const id of ['b', 'c', 'a']) {
      await answer(id);
      expect(saving.has(id)).toBe(true);
      await save(id);
      expect(asking.size).toBeLessThanOrEqual(1);
    }
    expect(left).toEqual(['b', 'c', 'a']);
    expect([lanes.size, lanes.running]).toEqual([0, 0]);
    expect(lanes.holdings.roomOf('a.test')).toBe(100);
  });

  it('keeps its place when it is local', async () => {
    const { lanes, asking, answer, save } = openAnswering({ maxLocalDeliveries: 1 });
    for (const id of ['a', 'b']) {
      const local = job(id);
      local.claimed.destination = { ...local.claimed.destination, isLocal: true };
      lanes.add(local);
    }
    lanes.pump();
    await answer('a');
    expect(asking.size).toBe(0);
    await save('a');
    expect([...asking.keys()]).toEqual(['b']);
  });
});
