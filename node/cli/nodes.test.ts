import { describe, expect, it } from 'vitest';
import { nodeTable } from './nodes.js';

const node = (id: string, more: object = {}) => ({
  id: id.repeat(32),
  hostname: 'mx1.example.test',
  state: 'ready',
  verdict: 'alive',
  phi: 0.12,
  gossipAgeSeconds: 0.2,
  heartbeatAgeSeconds: 1.4,
  shards: 22,
  claims: 10_000,
  leases: [{ job: 'purge', epoch: 3 }],
  version: '0.1.0',
  ...more,
});
const nodes = [
  node('a', { isThisNode: true, phi: null, gossipAgeSeconds: null }),
  node('b', { isCutOff: true, verdict: 'isolated' }),
];

describe('the list of nodes', () => {
  it('shows everything where there is room', () => {
    const lines = nodeTable(nodes, Number.POSITIVE_INFINITY).split('\n');
    expect(lines[0]!.split(/ +/)).toEqual('node hostname state verdict heard row phi shards claims jobs version'.split(' '));
    expect(lines[1]).toContain('aaaaaaaaaaaa *');
    expect(lines[2]).toContain('isolated (cut off)');
  });

  it('leaves out what matters least where there is not', () => {
    const lines = nodeTable(nodes, 80).split('\n');
    expect(lines).toHaveLength(3);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(lines[0]!.split(/ +/).slice(0, 4)).toEqual(['node', 'hostname', 'state', 'verdict']);
    expect(lines[0]).toContain('shards');
    expect(nodeTable(nodes, 20).split('\n')[0]).toMatch(/^node +hostname +state +verdict +shards$/);
  });
});
