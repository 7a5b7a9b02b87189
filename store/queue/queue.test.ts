import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type BlobStore, createBlobStore } from '../blobs/index.js';
import { key, keysFrom, keysUnder, subspace } from '../keyspace.js';
import { type KvTransaction, MemoryDatabase, type MemoryStore, openMemoryStore } from '../kv/index.js';
import { type ClaimedDestination, ClaimLost, createQueue, type NewQueueMessage, type NodeIdentity, type Queue } from './index.js';
import { destinationKey, dueKey } from './records.js';
import { allShards, shardOf } from './shards.js';
import { breakFence, raiseFence } from './test-fences.js';

const nowSeconds = 1_800_000_000;
const nodeA: NodeIdentity = { nodeId: 'a'.repeat(32), incarnation: 1 };
const nodeB: NodeIdentity = { nodeId: 'b'.repeat(32), incarnation: 1 };

let database: MemoryDatabase;
let kv: MemoryStore;
let blobs: BlobStore;
let queue: Queue;

function openNode() {
  const store = openMemoryStore({ database });
  const nodeBlobs = createBlobStore({ kv: store, clock: systemClock, random: systemRandom, logger: silentLogger });
  const nodeQueue = createQueue({ kv: store, blobs: nodeBlobs, clock: systemClock, random: systemRandom, logger: silentLogger });
  return { kv: store, blobs: nodeBlobs, queue: nodeQueue };
}

beforeEach(async () => {
  database = new MemoryDatabase({ clock: systemClock });
  ({ kv, blobs, queue } = openNode());
  await raiseFence(kv, nodeA);
});

function newMessage(recipientsByDomain: Record<string, string[]>, change: Partial<NewQueueMessage> = {}): NewQueueMessage {
  return {
    id: queue.newId(),
    blob: blobs.prepare(Buffer.from('Subject: test\r\n\r\nbody\r\n')),
    relayOffsetBytes: 0,
    from: 'sender@example.org',
    receivedAtMs: nowSeconds * 1000,
    expiresAtMs: nowSeconds * 1000 + 86_400_000,
    isUtf8: false,
    body: '7BIT',
    priority: 0,
    source: { protocol: 'smtp', remoteAddress: '192.0.2.1' },
    destinations: Object.entries(recipientsByDomain).map(([domain, addresses]) => ({
      domain,
      isLocal: false,
      recipients: addresses.map((address) => ({ address })),
    })),
    ...change,
  };
}

const enqueue = (message: NewQueueMessage, claimFor?: NodeIdentity, on: { kv: MemoryStore; queue: Queue } = { kv, queue }) =>
  on.kv.transact((tx) => on.queue.enqueue(tx, message, { nowSeconds, claimFor }));

const save = (
  claimed: ClaimedDestination,
  input: Parameters<Queue['save']>[2],
  on: { kv: MemoryStore; queue: Queue } = { kv, queue },
) => on.kv.transact((tx) => on.queue.save(tx, claimed, input));

const allDone = (claimed: ClaimedDestination) => ({
  results: claimed.destination.recipients.map(({ address }) => ({ address, status: 'relayed' as const })),
});

/** Everything under the queue and the blob links, as tuples' bytes in hex. */
async function leftovers(): Promise<string[]> {
  return kv.read(async (reads) => {
    const queueKeys = keysFrom(key(subspace.queue));
    const links = keysUnder(subspace.blob, 'link');
    const found = [...(await reads.getRange(queueKeys.begin, queueKeys.end)), ...(await reads.getRange(links.begin, links.end))];
    return found.map((pair) => pair.key.toString('latin1'));
  });
}

const dueNow = async (on: Queue = queue) => (await on.due(allShards, nowSeconds, 1000)).entries;

describe('ids and shards', () => {
  it('makes ids of 20 base32hex characters that sort by time', () => {
    const ids = [queue.newId(), queue.newId()];
    for (const id of ids) expect(id).toMatch(/^[0-9a-v]{20}$/);
    expect(new Set(ids).size).toBe(2);
    let at = 1_000;
    const clocked = createQueue({
      kv,
      blobs,
      random: systemRandom,
      logger: silentLogger,
      clock: { ...systemClock, nowMs: () => at },
    });
    const early = clocked.newId();
    at = 2 ** 41;
    expect(clocked.newId() > early).toBe(true);
  });
});

describe('enqueue', () => {
  it('is born due, is claimed, saved and leaves nothing but a receipt', async () => {
    const message = newMessage({ 'a.example': ['x@a.example'], 'b.example': ['y@b.example'] });
    expect(await enqueue(message)).toEqual([]);
    const claimed = await queue.claim(nodeA, await dueNow());
    expect(claimed.map(({ destination }) => destination.domain).sort()).toEqual(['a.example', 'b.example']);
    expect(claimed[0]!.message).toMatchObject({ id: message.id, from: 'sender@example.org', partCount: 2, sizeBytes: 23 });
    expect(await dueNow()).toEqual([]);
    expect(await save(claimed[0]!, allDone(claimed[0]!))).toEqual({ isDestinationDone: true, isMessageDone: false });
    expect(await save(claimed[1]!, allDone(claimed[1]!))).toEqual({ isDestinationDone: true, isMessageDone: true });
    expect(await leftovers()).toHaveLength(1);
    await queue.forgetReceipts(Date.now() / 1000 + 7200);
    expect(await leftovers()).toEqual([]);
  });

  it('keeps all fields of message and recipients', async () => {
    const message = newMessage(
      {},
      {
        ret: 'HDRS',
        envid: 'env 1',
        isUtf8: true,
        body: '8BITMIME',
        priority: 3,
        relayOffsetBytes: 7,
        source: { protocol: 'submission', remoteAddress: '2001:db8::1', accountId: 'acc', helo: 'h' },
        destinations: [
          {
            domain: 'a.example',
            isLocal: true,
            recipients: [{ address: 'ü@a.example', orcpt: 'utf-8;ü@a.example', notify: ['SUCCESS'] }],
          },
        ],
      },
    );
    await enqueue(message, nodeA);
    const { blob, destinations: _, ...facts } = message;
    const shown = (await queue.show(message.id))!;
    expect(shown.message).toEqual({ ...facts, blobId: blob.id, sizeBytes: blob.sizeBytes, partCount: 1 });
    expect(shown.destinations).toEqual([
      {
        queueId: message.id,
        domain: 'a.example',
        part: 0,
        isLocal: true,
        state: 'claimed',
        attempts: 0,
        dueAtSeconds: nowSeconds,
        epoch: 1,
        claim: { ...nodeA, epoch: 1 },
        recipients: [{ address: 'ü@a.example', orcpt: 'utf-8;ü@a.example', notify: ['SUCCESS'], status: 'pending' }],
        traits: { isLocal: true, isExpress: true, senderHash: expect.any(Number), queueName: '' },
      },
    ]);
  });

  it('takes 10,000 recipients with the longest addresses in one transaction, in values below the limit', async () => {
    const addresses = Array.from(
      { length: 10_000 },
      (_, i) => `${String(i).padStart(64, 'x')}@${'d'.repeat(60)}.${'e'.repeat(60)}.example`,
    );
    const message = newMessage({ 'big.example': addresses });
    const claimed = await enqueue(message, nodeA);
    expect(claimed).toHaveLength(32);
    const { destinations } = (await queue.show(message.id))!;
    expect(destinations.flatMap(({ recipients }) => recipients.map(({ address }) => address)).sort()).toEqual(
      [...addresses].sort(),
    );
    expect(Math.max(...destinations.map(({ recipients }) => recipients.length))).toBeLessThanOrEqual(100);
    // Every recipient gets the longest reply that is kept; the record must still fit.
    const reply = { code: 550, enhanced: '5.1.1', text: 'ä'.repeat(600), host: 'h'.repeat(300) };
    const results = claimed[0]!.destination.recipients.map(({ address }) => ({
      address,
      status: 'pending' as const,
      lastReply: reply,
    }));
    await save(claimed[0]!, { results, nextDueAtSeconds: nowSeconds + 60 });
    const saved = (await queue.show(message.id))!.destinations.find(({ part }) => part === claimed[0]!.destination.part)!;
    expect(Buffer.byteLength(saved.recipients[0]!.lastReply!.text)).toBe(480);
  });

  it('refuses an envelope that does not fit into one transaction', async () => {
    const addresses = Array.from({ length: 10_001 }, (_, i) => `${i}@big.example`);
    await expect(enqueue(newMessage({ 'big.example': addresses }))).rejects.toMatchObject({ code: 'too-large' });
    expect(await leftovers()).toEqual([]);
  });

  it('never doubles after an unknown commit, neither claimed nor due, even when it was delivered meanwhile', async () => {
    const claimedMessage = newMessage({ 'a.example': ['x@a.example'] });
    let runs = 0;
    kv.faults.commitUnknownApplied = 1;
    const claimed = await kv.transact(async (tx) => {
      if (++runs > 1) kv.faults.commitUnknownApplied = 0;
      return queue.enqueue(tx, claimedMessage, { nowSeconds, claimFor: nodeA });
    });
    expect(runs).toBe(2);
    expect(claimed).toHaveLength(1);
    await save(claimed[0]!, allDone(claimed[0]!));

    const other = openNode();
    await raiseFence(kv, nodeB);
    const dueMessage = newMessage({ 'a.example': ['x@a.example'] });
    runs = 0;
    kv.faults.commitUnknownApplied = 1;
    await kv.transact(async (tx) => {
      if (++runs > 1) {
        kv.faults.commitUnknownApplied = 0;
        // Another node was quicker than the retry.
        for (const one of await other.queue.claim(nodeB, await dueNow(other.queue))) await save(one, allDone(one), other);
      }
      return queue.enqueue(tx, dueMessage, { nowSeconds });
    });
    expect(runs).toBe(2);
    expect(await dueNow()).toEqual([]);
    await queue.forgetReceipts(Date.now() / 1000 + 7200);
    expect(await leftovers()).toEqual([]);
  });

  it.each<[string, (other: ReturnType<typeof openNode>, id: string) => Promise<unknown>]>([
    ['freed after its node was fenced', async (other) => other.queue.releaseClaimsOf(nodeA.nodeId, nowSeconds)],
    ['given back', async () => queue.release(await queue.claimsOf(nodeA, 10), nowSeconds)],
    ['cancelled', (_other, id) => queue.cancel(id)],
  ])('does not bring back what was born claimed, %s, and done before the enqueue ran again', async (how, take) => {
    const other = openNode();
    await raiseFence(kv, nodeB);
    const message = newMessage({ 'a.example': ['x@a.example'] });
    let runs = 0;
    kv.faults.nextCommit = 'applied';
    const claimed = await kv.transact(async (tx) => {
      if (++runs === 2) {
        if (how.includes('fenced')) await breakFence(other.kv, nodeA.nodeId);
        await take(other, message.id);
        for (const one of await other.queue.claim(nodeB, await dueNow(other.queue))) await save(one, allDone(one), other);
        expect(await other.queue.show(message.id)).toBeUndefined();
      }
      // As the receiving side does it.
      return queue.enqueue(tx, message, { nowSeconds, claimFor: nodeA }).catch((error: unknown) => {
        expect(error).toBeInstanceOf(ClaimLost);
        return queue.enqueue(tx, message, { nowSeconds });
      });
    });
    expect([runs, claimed]).toEqual([2, []]);
    expect(await queue.list()).toEqual([]);
    await queue.forgetReceipts(Date.now() / 1000 + 7200);
    expect(await leftovers()).toEqual([]);
  });

  it('refuses claims for a node whose fence is broken', async () => {
    await breakFence(kv, nodeA.nodeId);
    await expect(enqueue(newMessage({ 'a.example': ['x@a.example'] }), nodeA)).rejects.toBeInstanceOf(ClaimLost);
    expect(await leftovers()).toEqual([]);
  });
});

describe('claims', () => {
  it('gives each destination to exactly one of two racing nodes', async () => {
    const other = openNode();
    await raiseFence(kv, nodeB);
    for (let i = 0; i < 60; i++) await enqueue(newMessage({ 'a.example': [`${i}@a.example`] }));
    kv.faults.conflict = 0.2;
    const [entriesA, entriesB] = await Promise.all([dueNow(), dueNow(other.queue)]);
    const won = (
      await Promise.all([
        queue.claim(nodeA, entriesA.slice(0, 40)),
        other.queue.claim(nodeB, entriesB.slice(20)),
        queue.claim(nodeA, entriesA.slice(10, 30)),
      ])
    ).flat();
    expect(won.map(({ message }) => message.id).sort()).toEqual(entriesA.map(({ queueId }) => queueId).sort());
    expect(new Set(won.map(({ message }) => message.id)).size).toBe(60);
    expect((await queue.counts(nowSeconds)).claimed).toBe(60);
  });

  it('knows its own claim again after an unknown commit', async () => {
    await enqueue(newMessage({ 'a.example': ['x@a.example'] }));
    const entries = await dueNow();
    kv.faults.commitUnknownApplied = 0.7;
    const claimed = await queue.claim(nodeA, entries);
    kv.faults.clear();
    expect(claimed).toHaveLength(1);
    await save(claimed[0]!, allDone(claimed[0]!));
  });

  it('removes stale due entries', async () => {
    const message = newMessage({ 'a.example': ['x@a.example'] });
    const ref = { queueId: message.id, domain: 'a.example', part: 0 };
    await kv.transact(async (tx) => tx.set(dueKey(ref, nowSeconds), Buffer.alloc(0)));
    expect(await queue.claim(nodeA, await dueNow())).toEqual([]);
    expect(await leftovers()).toEqual([]);
  });

  it('orders by due time within a shard and tells when the next one is due', async () => {
    const message = newMessage({ 'a.example': ['x@a.example'] });
    const [claimed] = await enqueue(message, nodeA);
    await queue.release([claimed!], nowSeconds + 90);
    await enqueue(newMessage({ 'b.example': ['x@b.example'] }));
    const found = await queue.due(allShards, nowSeconds, 10);
    expect(found.entries.map(({ domain }) => domain)).toEqual(['b.example']);
    expect(found.nextDueAtSeconds).toBe(nowSeconds + 90);
    expect(
      (await queue.due([(shardOf(message.id) + 1) % 64], nowSeconds + 100, 10)).entries.map(({ domain }) => domain),
    ).not.toContain('a.example');
    expect(await queue.counts(nowSeconds)).toMatchObject({ dueNow: 1, scheduled: 1, claimed: 0, isComplete: true });
  });

  it('finds all due entries when they crowd in few shards, and no more than the limit', async () => {
    for (let i = 0; i < 120; i++) await enqueue(newMessage({ 'a.example': ['x@a.example'] }));
    expect((await queue.due(allShards, nowSeconds, 1000)).entries).toHaveLength(120);
    const some = await queue.due(allShards, nowSeconds, 70);
    expect(some.entries).toHaveLength(70);
    expect(some.nextDueAtSeconds).toBe(nowSeconds);
    expect(new Set(some.entries.map(({ queueId }) => queueId)).size).toBe(70);
  });

  it('answers the claims that the store holds for a node', async () => {
    const [claimed] = await enqueue(newMessage({ 'a.example': ['x@a.example'] }), nodeA);
    expect(await queue.claimsOf(nodeA, 10)).toEqual([claimed]);
  });
});

describe('saving', () => {
  it('keeps the claim, reschedules, and asserts the epoch', async () => {
    const [claimed] = await enqueue(newMessage({ 'a.example': ['x@a.example', 'y@a.example'] }), nodeA);
    const lastReply = { code: 250, enhanced: '2.0.0', text: 'ok', host: 'mx.a.example' };
    await save(claimed!, { results: [{ address: 'x@a.example', status: 'relayed', lastReply }], keepClaim: true });
    await expect(save(claimed!, { results: [] })).rejects.toBeInstanceOf(RangeError);
    await save(claimed!, { results: [], nextDueAtSeconds: nowSeconds + 60, attempted: { atMs: 5 } });
    await expect(save(claimed!, allDone(claimed!))).rejects.toBeInstanceOf(ClaimLost);
    const shown = (await queue.show(claimed!.message.id))!.destinations[0]!;
    expect(shown).toMatchObject({ state: 'due', dueAtSeconds: nowSeconds + 60, attempts: 1, lastAttemptAtMs: 5 });
    expect(shown.recipients).toEqual([
      { address: 'x@a.example', status: 'relayed', lastReply },
      { address: 'y@a.example', status: 'pending' },
    ]);
    const { entries } = await queue.due(allShards, nowSeconds + 60, 10);
    const [again] = await queue.claim(nodeA, entries);
    expect(again!.claim.epoch).toBe(2);
    expect((await save(again!, { results: [{ address: 'y@a.example', status: 'failed' }] })).isMessageDone).toBe(true);
    expect(await leftovers()).toEqual([]);
  });

  it('never changes a recipient that is final', async () => {
    const [claimed] = await enqueue(newMessage({ 'a.example': ['x@a.example', 'y@a.example'] }), nodeA);
    await save(claimed!, { results: [{ address: 'x@a.example', status: 'relayed' }], keepClaim: true });
    await save(claimed!, { results: [{ address: 'x@a.example', status: 'failed' }], keepClaim: true });
    expect((await queue.show(claimed!.message.id))!.destinations[0]!.recipients[0]!.status).toBe('relayed');
  });

  it('removes the message when two destinations finish at once', async () => {
    for (let round = 0; round < 20; round++) {
      const claimed = await enqueue(newMessage({ 'a.example': ['x@a.example'], 'b.example': ['x@b.example'] }), nodeA);
      const outcomes = await Promise.all(claimed.map((one) => save(one, allDone(one))));
      expect(outcomes.filter(({ isMessageDone }) => isMessageDone)).toHaveLength(1);
    }
    expect(await leftovers()).toEqual([]);
  });

  it('reads nothing twice when given what `current` answered', async () => {
    const [claimed] = await enqueue(newMessage({ 'a.example': ['x@a.example'] }), nodeA);
    await kv.transact(async (tx) => {
      const current = await queue.current(tx, claimed!);
      const blind = new Proxy(tx, {
        get(target, name) {
          if (name === 'get' || name === 'getMany' || name === 'getRange') throw new Error('a read');
          const value = Reflect.get(target, name) as unknown;
          return typeof value === 'function' ? value.bind(target) : value;
        },
      }) as KvTransaction;
      await queue.save(blind, claimed!, { ...allDone(claimed!), current });
    });
    expect(await leftovers()).toEqual([]);
  });
});

describe('takeover', () => {
  it('lets a fenced node save nothing, and frees its claims with higher epochs', async () => {
    const other = openNode();
    await raiseFence(kv, nodeB);
    const claimed = await enqueue(newMessage({ 'a.example': ['x@a.example'], 'b.example': ['x@b.example'] }), nodeA);
    await expect(other.queue.releaseClaimsOf(nodeA.nodeId, nowSeconds)).rejects.toThrow('still stands');
    await breakFence(kv, nodeA.nodeId);
    await expect(save(claimed[0]!, allDone(claimed[0]!))).rejects.toBeInstanceOf(ClaimLost);
    expect(await other.queue.releaseClaimsOf(nodeA.nodeId, nowSeconds, 1)).toBe(1);
    expect(await other.queue.releaseClaimsOf(nodeA.nodeId, nowSeconds)).toBe(1);
    expect(await other.queue.releaseClaimsOf(nodeA.nodeId, nowSeconds)).toBe(0);
    const taken = await other.queue.claim(nodeB, await dueNow(other.queue));
    expect(taken.map(({ claim }) => claim.epoch)).toEqual([3, 3]);
    await expect(queue.claim(nodeA, [])).resolves.toEqual([]);
    for (const one of taken) await save(one, allDone(one), other);
    await queue.forgetReceipts(Date.now() / 1000 + 7200);
    expect(await leftovers()).toEqual([]);
  });

  it('makes claims due for everybody, also on a node whose clock is a day ahead', async () => {
    await enqueue(newMessage({ 'a.example': ['x@a.example'] }), nodeA);
    await breakFence(kv, nodeA.nodeId);
    expect(await queue.releaseClaimsOf(nodeA.nodeId, nowSeconds + 86_400)).toBe(1);
    expect((await dueNow()).map(({ domain }) => domain)).toEqual(['a.example']);
  });

  it('frees what it can read, whatever comes before, and leaves the rest claimed for a node that can', async () => {
    const messages = Array.from({ length: 60 }, () => newMessage({ 'a.example': ['x@a.example'] }));
    for (const message of messages) await enqueue(message, nodeA);
    const ids = messages.map(({ id }) => id).sort();
    // A whole transaction's worth of them.
    for (const queueId of ids.slice(0, 55)) {
      const damaged = destinationKey({ queueId, domain: 'a.example', part: 0 });
      await kv.transact(async (tx) => tx.set(damaged, Buffer.from([0xc1, 0xff])));
    }
    await breakFence(kv, nodeA.nodeId);
    expect(await queue.releaseClaimsOf(nodeA.nodeId, nowSeconds)).toBe(5);
    expect(await queue.releaseClaimsOf(nodeA.nodeId, nowSeconds)).toBe(0);
    expect((await dueNow()).map(({ queueId }) => queueId).sort()).toEqual(ids.slice(55));
    expect(await queue.countClaimsOf(nodeA.nodeId, 100)).toBe(55);
  });
});

describe('operators', () => {
  it('lists in order, holds, frees, retries and cancels', async () => {
    const messages = [
      newMessage({ 'a.example': ['x@a.example'] }),
      newMessage({ 'a.example': ['y@a.example'], 'b.example': ['y@b.example'] }),
    ];
    for (const message of messages) await enqueue(message);
    const ids = messages.map(({ id }) => id).sort();
    const listed = await queue.list();
    expect(listed.map(({ message }) => message.id)).toEqual(ids);
    expect((await queue.list({ afterQueueId: ids[0] })).map(({ message }) => message.id)).toEqual([ids[1]]);
    const { id } = messages[1]!;
    expect(await queue.hold(id)).toBe(2);
    expect((await dueNow()).map(({ queueId }) => queueId)).toEqual([messages[0]!.id]);
    expect(await queue.retryNow(id, nowSeconds)).toBe(0);
    expect(await queue.unhold(id, nowSeconds + 50)).toBe(2);
    expect(await queue.retryNow(id, nowSeconds)).toBe(2);
    expect(await dueNow()).toHaveLength(3);
    const claimed = await queue.claim(
      nodeA,
      (await dueNow()).filter(({ domain }) => domain === 'b.example'),
    );
    expect(await queue.cancel(id)).toBe(true);
    expect(await queue.cancel(id)).toBe(false);
    await expect(save(claimed[0]!, allDone(claimed[0]!))).rejects.toBeInstanceOf(ClaimLost);
    expect(await queue.show(id)).toBeUndefined();
    expect(await queue.cancel(messages[0]!.id)).toBe(true);
    await queue.forgetReceipts(Date.now() / 1000 + 7200);
    expect(await leftovers()).toEqual([]);
  });

  it('wakes listeners after releases and announcements', async () => {
    let woken = 0;
    const off = queue.onDue(() => woken++);
    const [claimed] = await enqueue(newMessage({ 'a.example': ['x@a.example'] }), nodeA);
    await queue.release([claimed!], nowSeconds);
    queue.announceDue();
    off();
    queue.announceDue();
    expect(woken).toBe(2);
  });
});

describe('a record that this node can not read', () => {
  it('is left where it is and stops nobody else', async () => {
    const damaged = newMessage({ 'a.test': ['x@a.test'] });
    const sound = newMessage({ 'b.test': ['x@b.test'] });
    for (const message of [damaged, sound])
      await kv.transact(async (tx) => void (await queue.enqueue(tx, message, { nowSeconds })));
    const before = Buffer.from([0xc1, 0xff]);
    await kv.transact(async (tx) => tx.set(destinationKey({ queueId: damaged.id, domain: 'a.test', part: 0 }), before));
    const { entries } = await queue.due(allShards, nowSeconds + 1, 10);
    expect(entries).toHaveLength(2);
    const claimed = await queue.claim(nodeA, entries);
    expect(claimed.map(({ message }) => message.id)).toEqual([sound.id]);
    expect((await queue.claimsOf(nodeA, 10)).map(({ message }) => message.id)).toEqual([sound.id]);
    const kept = await kv.read((reads) => reads.get(destinationKey({ queueId: damaged.id, domain: 'a.test', part: 0 })));
    expect(kept).toEqual(before);
    expect((await queue.due(allShards, nowSeconds + 1, 10)).entries.map(({ queueId }) => queueId)).toEqual([damaged.id]);
  });
});
