/** Between the answer of a peer and its save: what others may do meanwhile, and what becomes of the answer when the save meets trouble. */
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../ops/telemetry/index.js';
import { peer, withPeer } from '../../../protocols/smtp/client/test-peers.js';
import { startTestServer } from '../../../protocols/smtp/testing/server.js';
import { openMemoryStore } from '../../../store/kv/index.js';
import { ClaimLost } from '../../../store/queue/index.js';
import { breakFence } from '../../../store/queue/test-fences.js';
import { createDelivery, type DeliveryDependencies } from '../delivery.js';
import { openBench } from '../testing/outcomes.js';
import { defaultOutboundSettings, type OutboundSettings } from './contract.js';

const closing: { close(): unknown }[] = [];
afterEach(async () => {
  for (const one of closing.splice(0)) await one.close();
});

interface More {
  outbound?: Partial<OutboundSettings>;
  dependencies?: Partial<DeliveryDependencies>;
  maxConnectionsPerDomain?: number;
}

const maxRemoteDeliverySeconds = 1_234;

/** The system's clock, but the time limits of deliveries come when they are told to. */
function clockOfLimits() {
  const limits = new Set<() => void>();
  const setTimer: typeof systemClock.setTimer = (delayMs, run, options) => {
    if (delayMs !== maxRemoteDeliverySeconds * 1000) return systemClock.setTimer(delayMs, run, options);
    limits.add(run);
    return { cancel: () => void limits.delete(run) };
  };
  const { nowMs, monotonicMs, sleep } = systemClock;
  const letTimePass = () => {
    for (const run of limits) run();
    limits.clear();
  };
  return { clock: { nowMs, monotonicMs, sleep, setTimer }, letTimePass };
}

/** Deliveries to `target.test` at this port, whose saves wait until `letSave`. */
async function open(port: number, { outbound, dependencies, ...settings }: More = {}) {
  const store = openMemoryStore();
  let letSave!: () => void;
  const gate = new Promise<void>((resolve) => {
    letSave = resolve;
  });
  /** What the next save fails with. */
  const broken: Error[] = [];
  const { clock, letTimePass } = clockOfLimits();
  const { transact } = store;
  store.transact = async (body, options) => {
    if (options?.label === 'settle') {
      await gate;
      const error = broken.shift();
      if (error) throw error;
    }
    return transact.call(store, body, options) as ReturnType<typeof body>;
  };
  const bench = await openBench({
    kv: store,
    settings: { smtpPort: port, outbound: { ...defaultOutboundSettings, ...outbound }, maxRemoteDeliverySeconds, ...settings },
  });
  bench.resolver.mailHosts.set('target.test', ['mx.target.test']);
  bench.resolver.addresses.set('mx.target.test', '127.0.0.1');
  const delivery = createDelivery({ ...bench, kv: store, clock, ...dependencies });
  const stopping = new AbortController();
  closing.unshift({ close: () => delivery.close() }, { close: letSave }, bench);
  /** Begins a delivery. `answered` resolves when it has left its place. */
  function begin(claimed: Awaited<ReturnType<typeof bench.claimOne>>) {
    let answers = 0;
    let onAnswered!: () => void;
    const answered = new Promise<void>((resolve) => {
      onAnswered = () => {
        answers++;
        resolve();
      };
    });
    const done = delivery.deliver({ claimed, onAnswered }, stopping.signal);
    done.catch(() => {});
    return { answered, done, answers: () => answers };
  }
  return { bench, store, delivery, begin, letSave, letTimePass, broken, stopping };
}

async function serve(options: Parameters<typeof startTestServer>[0] = {}) {
  const server = await startTestServer(options);
  closing.push(server);
  return server;
}

const statusOf = async (bench: Awaited<ReturnType<typeof openBench>>, queueId: string) =>
  (await bench.queue.show(queueId))?.destinations[0]?.recipients.map(({ status }) => status);

describe('while the answer to a delivery is being saved', () => {
  it('the next one goes over the same connection, and both are saved', async () => {
    const server = await serve();
    const { bench, delivery, begin, letSave } = await open(server.port, { maxConnectionsPerDomain: 1 });
    const first = begin(await bench.claimOne());
    await first.answered;
    expect(delivery.pacer.runningOf('target.test')).toBe(0);
    const second = begin(await bench.claimOne());
    await second.answered;
    expect(server.handler.messages).toHaveLength(2);
    expect(server.sessions).toHaveLength(1);
    // Nothing is over before it is saved.
    const isOver = await Promise.race([first.done.then(() => true), new Promise((resolve) => setImmediate(resolve, false))]);
    expect(isOver).toBe(false);
    letSave();
    await Promise.all([first.done, second.done]);
    expect(await bench.queue.list()).toEqual([]);
  });

  it('its place in the limits of the cluster is another’s, once', async () => {
    const server = await serve();
    let held = 0;
    let releases = 0;
    const concurrency = {
      acquire: async () => {
        held++;
        return () => {
          held--;
          releases++;
        };
      },
    };
    const { bench, begin, letSave } = await open(server.port, {
      outbound: { concurrency: [{ name: 'all', max: 5 }] },
      dependencies: { limits: { concurrency: concurrency as never } },
    });
    const { answered, done } = begin(await bench.claimOne());
    await answered;
    expect([held, releases]).toEqual([0, 1]);
    letSave();
    await done;
    expect([held, releases]).toEqual([0, 1]);
  });

  it('the time limits of others, who may use its signal, say nothing of it', async () => {
    let messages = 0;
    const talk = peer(['PIPELINING']);
    // Silent from the second message on.
    const answer = (line: string) => (line.startsWith('MAIL') && ++messages > 1 ? '' : messages > 1 ? '' : talk(line));
    await withPeer(answer, async (port) => {
      const { bench, begin, letSave, letTimePass, broken } = await open(port);
      const claimed = [await bench.claimOne(), await bench.claimOne()] as const;
      const first = begin(claimed[0]);
      await first.answered;
      const second = begin(claimed[1]);
      while (messages < 2) await new Promise((resolve) => setImmediate(resolve));
      letTimePass();
      broken.push(new Error('nobody foresaw this'));
      letSave();
      await expect(first.done).rejects.toThrow('nobody foresaw this');
      await second.done;
      expect(await statusOf(bench, claimed[0].message.id)).toEqual(['pending']);
      const [kept] = (await bench.queue.show(claimed[1].message.id))!.destinations;
      expect(kept).toMatchObject({ state: 'due', recipients: [{ lastReply: { text: 'The delivery took too long' } }] });
    });
  });

  it('a node that has been declared dead saves nothing', async () => {
    const server = await serve();
    const { bench, begin, letSave } = await open(server.port);
    const claimed = await bench.claimOne();
    const { answered, done } = begin(claimed);
    await answered;
    await breakFence(bench.kv, bench.node.nodeId);
    letSave();
    await expect(done).rejects.toThrow(ClaimLost);
    expect(await statusOf(bench, claimed.message.id)).toEqual(['pending']);
  });

  it('a store that is away is asked again until it takes the answer, and nobody is served twice', async () => {
    const server = await serve();
    const { bench, store, begin, letSave } = await open(server.port);
    const claimed = await bench.claimOne();
    const { answered, done, answers } = begin(claimed);
    await answered;
    store.faults.outage = true;
    letSave();
    await new Promise((resolve) => setTimeout(resolve, 20));
    store.faults.clear();
    await done;
    expect(answers()).toBe(1);
    expect(server.handler.messages).toHaveLength(1);
    expect(await bench.queue.list()).toEqual([]);
  });

  it('a commit of which nobody knows is found to have been made', async () => {
    const server = await serve();
    const { bench, store, begin, letSave } = await open(server.port);
    const claimed = await bench.claimOne();
    const { answered, done } = begin(claimed);
    await answered;
    store.faults.nextCommit = 'applied';
    letSave();
    await done.catch((error: unknown) => expect(error).toBeInstanceOf(ClaimLost));
    expect(server.handler.messages).toHaveLength(1);
    expect(await bench.queue.list()).toEqual([]);
  });

  it('a node that stops while the store is away leaves the claim as it is', async () => {
    const server = await serve();
    const { bench, store, begin, letSave, stopping } = await open(server.port);
    const claimed = await bench.claimOne();
    const { answered, done } = begin(claimed);
    await answered;
    store.faults.outage = true;
    letSave();
    await new Promise((resolve) => setTimeout(resolve, 20));
    stopping.abort(new Error('the node is stopping'));
    await expect(done).rejects.toThrow();
    store.faults.clear();
    expect(await statusOf(bench, claimed.message.id)).toEqual(['pending']);
  });
});

describe('a delivery keeps its place', () => {
  it('while a host wants its recipients in several transactions', async () => {
    await withPeer(peer(['LIMITS RCPTMAX=1', 'PIPELINING']), async (port, lines) => {
      const { bench, begin, letSave } = await open(port);
      const recipients = ['a', 'b', 'c'].map((name) => ({ address: `${name}@target.test` }));
      const claimed = await bench.claimOne({ destinations: [{ domain: 'target.test', isLocal: false, recipients }] });
      const { answered, done, answers } = begin(claimed);
      let asked = 0;
      void answered.then(() => (asked = lines.filter((line) => line.startsWith('RCPT')).length));
      letSave();
      await done;
      expect([answers(), asked]).toEqual([1, 3]);
      expect(await bench.queue.list()).toEqual([]);
    });
  });
});
