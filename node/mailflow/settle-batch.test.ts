import { afterEach, describe, expect, it, vi } from 'vitest';
import type { MemoryStore } from '../../store/kv/index.js';
import { ClaimLost, type NewQueueMessage } from '../../store/queue/index.js';
import { type Bench, openBench } from './testing/outcomes.js';

const opened: Bench[] = [];
afterEach(async () => {
  for (const bench of opened.splice(0)) await bench.close();
});

const reply = { code: 250, enhanced: '2.0.0', text: 'Ok', host: 'mx.target.test' };
const toThree: Partial<NewQueueMessage> = {
  destinations: ['a.test', 'b.test', 'c.test'].map((domain) => ({
    domain,
    isLocal: false,
    recipients: [{ address: `x@${domain}` }],
  })),
};

/** Claims of one message to three domains, and of as many to one as `singles` says. */
async function claims(singles: number) {
  const bench = await openBench();
  opened.push(bench);
  const first = await bench.claimOne(toThree);
  const claimed = [...(await bench.queue.claimsOf(bench.node, 10))];
  expect(claimed.filter(({ message }) => message.id === first.message.id)).toHaveLength(3);
  for (let count = 0; count < singles; count++) claimed.push(await bench.claimOne());
  const settleAll = () =>
    Promise.allSettled(
      claimed.map((one) => {
        const verdicts = one.destination.recipients.map(({ address }) => ({ address, verdict: 'relayed' as const, reply }));
        return bench.settle({ claimed: one, verdicts, kind: 'remote' });
      }),
    );
  return { bench, claimed, settleAll };
}

describe('saves that are ready at the same time', () => {
  it('share transactions, and the last destination of a message removes it, once', async () => {
    const { bench, settleAll } = await claims(20);
    const transact = vi.spyOn(bench.kv, 'transact');
    const settled = await settleAll();
    expect(settled.filter(({ status }) => status === 'rejected')).toEqual([]);
    const outcomes = settled.map((one) => (one.status === 'fulfilled' ? one.value : undefined));
    expect(outcomes.slice(0, 3).map((one) => one?.isMessageDone)).toEqual([false, false, true]);
    expect(transact.mock.calls.filter(([, options]) => options?.label === 'settle').length).toBeLessThanOrEqual(2);
    expect(await bench.queue.list()).toEqual([]);
  });

  it('of one destination see what those before them have saved', async () => {
    const bench = await openBench();
    opened.push(bench);
    const addresses = ['a@target.test', 'b@target.test'];
    const recipients = addresses.map((address) => ({ address }));
    const claimed = await bench.claimOne({ destinations: [{ domain: 'target.test', isLocal: false, recipients }] });
    const [first, second] = await Promise.all(
      addresses.map((address, at) => {
        const verdicts = [{ address, verdict: 'relayed' as const, reply }];
        return bench.settle({ claimed, verdicts, kind: 'remote', keepClaim: at === 0 });
      }),
    );
    expect(first).toEqual({ isDestinationDone: false, isMessageDone: false });
    expect(second).toEqual({ isDestinationDone: true, isMessageDone: true });
    expect(await bench.queue.list()).toEqual([]);
  });

  it('go through when the claim of one of them is lost', async () => {
    const { bench, claimed, settleAll } = await claims(5);
    await bench.queue.cancel(claimed[4]!.message.id);
    const settled = await settleAll();
    expect(settled.map(({ status }) => status).filter((status) => status === 'rejected')).toHaveLength(1);
    expect(settled[4]).toMatchObject({ status: 'rejected', reason: expect.any(ClaimLost) });
    expect(await bench.queue.list()).toEqual([]);
  });

  it('are saved once through conflicts and unknown commits', async () => {
    const { bench, settleAll } = await claims(20);
    Object.assign((bench.kv as MemoryStore).faults, { conflict: 0.3, commitUnknownApplied: 0.3, commitUnknownLost: 0.2 });
    for (const one of await settleAll()) if (one.status === 'rejected') expect(one.reason).toBeInstanceOf(ClaimLost);
    (bench.kv as MemoryStore).faults.clear();
    expect(await bench.queue.list()).toEqual([]);
    expect(await bench.queue.claimsOf(bench.node, 100)).toEqual([]);
  });
});
