import { describe, expect, it } from 'vitest';
import { seededRandom } from '../testing/nodes.js';
import { type NodeClock, VirtualTime } from '../testing/virtual-time.js';
import { Dialer } from './dialer.js';
import type { Connection, Host } from './libp2p-types.js';
import { gossipTimes } from './options.js';
import { nodeIdOf } from './test-nodes.js';

const address = { host: '127.0.0.1', port: 1 };
const member = { nodeId: nodeIdOf(2), incarnation: 1, peerId: 'peer2', addresses: [address] };

interface Dial {
  text: string;
  atMs: number;
  signal: AbortSignal;
}

/** A dialer whose dials answer with `connection`, or never. */
function dialing({ connection, others = [] }: { connection?: object; others?: object[] }) {
  const time = new VirtualTime();
  const clock: NodeClock = time.clock();
  const dials: Dial[] = [];
  const host = {
    getConnections: () => [connection, ...others],
    dial: async (text: string, { signal }: { signal: AbortSignal }) => {
      dials.push({ text, atMs: clock.monotonicMs(), signal });
      if (connection) return connection;
      signal.throwIfAborted();
      return await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    },
  };
  const dialer = new Dialer({
    host: host as unknown as Host,
    toMultiaddr: (text) => text as never,
    ownNodeId: nodeIdOf(1),
    bootstrap: connection ? [address] : [],
    clock,
    random: seededRandom(1),
    isConnected: () => false,
    isRefused: () => false,
  });
  const run = async (ms: number) => {
    for (let atMs = 0; atMs < ms; atMs += gossipTimes.tickMs) {
      dialer.tick(clock.monotonicMs());
      await time.advance(gossipTimes.tickMs);
    }
  };
  return { dialer, dials, run, time };
}

describe('the dialer', () => {
  it('leaves the connections alone that it finds behind a bootstrap address: they may be the only ones that work', async () => {
    let closed = 0;
    const connection = {
      id: '1',
      status: 'open',
      remotePeer: 'peer2',
      close: async () => void closed++,
    } as unknown as Connection;
    const { run, dials } = dialing({ connection, others: [{ id: '2', status: 'open' }] });
    await run(1_000);
    expect(dials.length).toBeGreaterThan(0);
    expect(closed).toBe(0);
  });

  it('dials a peer ever more rarely whose connections come to nothing, and at once again when one has', async () => {
    const { dialer, run, dials, time } = dialing({ connection: { remotePeer: 'peer2' } });
    dialer.setMembers([member]);
    const ofMember = () => dials.filter(({ text }) => text.endsWith('peer2'));
    let seen = 0;
    for (let i = 0; i < 400; i++) {
      await run(gossipTimes.tickMs);
      if (ofMember().length > seen) dialer.fruitless('peer2');
      seen = ofMember().length;
    }
    // A hundred seconds at 300 ms would be some two hundred and fifty.
    expect(seen).toBeLessThan(45);
    expect(seen).toBeGreaterThan(15);
    dialer.fruitful('peer2');
    await run(7_000);
    const before = ofMember().length;
    await run(3_000);
    expect(ofMember().length - before).toBeGreaterThan(4);
    expect(time.nowMs).toBeGreaterThan(100_000);
  });

  it('aborts what is under way when it is stopped, and dials no more', async () => {
    const { dialer, run, dials, time } = dialing({});
    dialer.setMembers([member]);
    await run(gossipTimes.tickMs);
    expect(dials).toHaveLength(1);
    dialer.stop();
    expect(dials[0]!.signal.aborted).toBe(true);
    await run(10_000);
    expect(dials).toHaveLength(1);
    expect(time.waiting.size).toBe(0);
  });
});
