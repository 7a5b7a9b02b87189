import { afterEach, describe, expect, it } from 'vitest';
import type { Membership } from '../cluster/membership/index.js';
import { type NodeClock, VirtualTime } from '../cluster/testing/virtual-time.js';
import { silentLogger, systemRandom } from '../ops/telemetry/index.js';
import { createBlobStore } from '../store/blobs/index.js';
import { KvError, MemoryDatabase, openMemoryStore } from '../store/kv/index.js';
import { createMailStore } from '../store/mail/index.js';
import { allShards, ClaimLost, createQueue } from '../store/queue/index.js';
import { createNodeMembership, describeNodes, reasonToRefuse, storeProblems } from './membership.js';

const termMs = 10_000;
const nowSeconds = 1_800_000_000;

let time: VirtualTime;
const joined: { membership: Membership; clock: NodeClock }[] = [];

afterEach(async () => {
  for (const { membership, clock } of joined.splice(0)) {
    clock.isPaused = false;
    const stopping = membership.stop();
    await time.advance(termMs);
    await stopping;
  }
});

/** Nodes on one database, each with a queue of its own over it. */
async function open(count: number) {
  time = new VirtualTime();
  const database = new MemoryDatabase({ clock: time.clock() });
  const nodes = [];
  for (let index = 0; index < count; index++) {
    const clock = time.clock();
    const parts = { kv: openMemoryStore({ database, clock }), clock, random: systemRandom, logger: silentLogger };
    const blobs = createBlobStore(parts);
    const queue = createQueue({ ...parts, blobs });
    const mail = createMailStore({ ...parts, blobs });
    const node = { nodeId: systemRandom.bytes(16).toString('hex'), incarnation: 1 };
    const membership = createNodeMembership({
      config: {
        hostname: `mx${index}.example.test`,
        listeners: [{ name: 'smtp', protocol: 'smtp', host: '::1', port: 25 } as never],
        roles: ['queue'],
      },
      stores: { ...parts, queue },
      logger: silentLogger,
      node,
    });
    await membership.join();
    void membership.setState('ready');
    nodes.push({ ...parts, clock, blobs, queue, mail, node, membership });
    joined.push({ membership, clock });
  }
  await time.advance(4_000);
  return nodes;
}

type Opened = Awaited<ReturnType<typeof open>>[number];

/** A message that is born claimed by the node. */
async function accept({ kv, queue, blobs, node }: Opened, to = 'x@a.example') {
  const message = {
    id: queue.newId(),
    blob: blobs.prepare(Buffer.from('Subject: x\r\n\r\nx\r\n')),
    relayOffsetBytes: 0,
    from: '',
    receivedAtMs: 0,
    expiresAtMs: 0,
    isUtf8: false,
    body: '7BIT' as const,
    priority: 0,
    source: { protocol: 'local' as const },
    destinations: [{ domain: 'a.example', isLocal: false, recipients: [{ address: to }] }],
  };
  const [claimed] = await kv.transact((tx) => queue.enqueue(tx, message, { nowSeconds, claimFor: node }));
  return claimed!;
}

const relayed = { results: [{ address: 'x@a.example', status: 'relayed' as const }] };

describe('a node of the cluster', () => {
  it('that was paused for too long saves nothing of what another has taken over', async () => {
    const [paused, other] = (await open(2)) as [Opened, Opened];
    const claimed = [];
    for (let i = 0; i < 60; i++) claimed.push(await accept(paused));
    paused.clock.isPaused = true;
    await time.advance(termMs + 6_000);
    expect(await other.queue.claimHolders()).toEqual([]);
    for (const one of claimed) {
      await expect(paused.kv.transact((tx) => paused.queue.save(tx, one, relayed))).rejects.toBeInstanceOf(ClaimLost);
    }
    await expect(accept(paused)).rejects.toBeInstanceOf(ClaimLost);
    const { entries } = await other.queue.due(allShards, nowSeconds + 100, 100);
    const taken = await other.queue.claim(other.node, entries);
    expect(taken).toHaveLength(60);
    expect(new Set(taken.map(({ claim }) => claim.epoch))).toEqual(new Set([3]));
    for (const one of taken) await other.kv.transact((tx) => other.queue.save(tx, one, relayed));
    expect(await other.queue.list()).toEqual([]);
  });

  it('that leaves gives its claims back, and those of a restored store are freed', async () => {
    const [leaving, other] = (await open(2)) as [Opened, Opened];
    await accept(leaving);
    await leaving.membership.leave();
    expect(await other.queue.counts(nowSeconds + 100)).toMatchObject({ dueNow: 1, claimed: 0 });
    await accept(other);
    expect(await other.queue.countClaimsOf(other.node.nodeId, 10)).toBe(1);
    expect(await other.queue.claimHolders()).toEqual([other.node.nodeId]);
  });

  it('is shown to operators with its claims, as the one that is asked sees it', async () => {
    const [a, b] = (await open(2)) as [Opened, Opened];
    await accept(b);
    const shares = [a, b].map(({ node }) => ({ nodeId: node.nodeId }));
    const leases = [{ job: 'purge', nodeId: b.node.nodeId, epoch: 3 }];
    const rows = await describeNodes({ nodes: a.membership.nodes(), shares, leases }, a.queue);
    expect(rows).toMatchObject([
      {
        id: a.node.nodeId,
        isThisNode: true,
        state: 'ready',
        health: 'alive',
        claims: 0,
        shards: 32,
        leases: [],
        addresses: ['smtp [::1]:25'],
      },
      {
        id: b.node.nodeId,
        isThisNode: false,
        hostname: 'mx1.example.test',
        state: 'ready',
        claims: 1,
        shards: 32,
        leases: [{ job: 'purge', epoch: 3 }],
        roles: ['queue'],
      },
    ]);
  });

  it('says why it refuses', () => {
    expect(reasonToRefuse({ standing: 'joined', heartbeatAgeMs: 1 })).toBeUndefined();
    expect(reasonToRefuse({ standing: 'storeless', heartbeatAgeMs: 12_345 })).toContain('12 s');
    expect(reasonToRefuse({ standing: 'fenced', heartbeatAgeMs: 0 })).toContain('declared this one dead');
  });

  it('is not ready when the store or the storage of large messages is away, and says which', async () => {
    const well = { check: async () => {} };
    const away = (what: string) => ({ check: () => Promise.reject(new KvError('unavailable', what, 'outage')) });
    const kv = openMemoryStore();
    expect(await storeProblems({ kv, blobs: well })).toEqual([]);
    expect(await storeProblems({ kv, blobs: away('no bucket') })).toEqual([expect.stringContaining('no bucket')]);
    kv.faults.outage = true;
    const both = await storeProblems({ kv, blobs: away('no bucket') });
    expect(both).toEqual([expect.stringContaining("store can't be written"), expect.stringContaining('no bucket')]);
  });
});
