import { describe, expect, it } from 'vitest';
import type { Host } from './libp2p-types.js';
import type { Link } from './link.js';
import { gossipTimes } from './options.js';
import { Peer } from './peers.js';
import { repairStreams } from './stream-repair.js';

describe('a gossip stream that is missing', () => {
  it('is asked for again, and after many times in vain the connection is given up; one that comes back begins anew', () => {
    let asked = 0;
    const host = { services: { identify: { identify: async () => void asked++ } } } as unknown as Host;
    const streams: object[] = [];
    const link = { connection: { status: 'open', streams } } as unknown as Link;
    const peer = new Peer('peer', 0);
    peer.links.add(link);
    peer.current = link;
    let nowMs = 0;
    const look = () => repairStreams(host, '/gossip', peer, true, (nowMs += gossipTimes.streamRepairMs));
    for (let i = 0; i < 8; i++) expect(look()).toBe('repairing');
    expect(asked).toBe(7);
    streams.push({ protocol: '/gossip', direction: 'outbound', writeStatus: 'writable' });
    expect(look()).toBe('fine');
    streams.pop();
    const seen = Array.from({ length: 14 }, look);
    expect(seen.slice(0, -1).every((one) => one === 'repairing')).toBe(true);
    expect(seen.at(-1)).toBe('beyond repair');
  });
});
