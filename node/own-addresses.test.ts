import { describe, expect, it } from 'vitest';
import type { NodeView } from '../cluster/membership/index.js';
import { silentLogger } from '../ops/telemetry/index.js';
import { checkConfig } from './config/load.js';
import { OwnAddresses } from './own-addresses.js';
import { ownEndpoints } from './own-endpoints.js';

type Row = NonNullable<NodeView['row']>;

const rowOf = (addresses: { host: string; port?: number; protocol?: string }[], gossip: string[] = []) =>
  ({
    addresses: addresses.map(({ host, port = 25, protocol = 'smtp' }) => ({ name: 'x', protocol, host, port })),
    gossip: { peerId: 'p', addresses: gossip.map((host) => ({ host, port: 2946 })) },
  }) as unknown as Row;

const config = checkConfig({
  listeners: [{ name: 'mx', protocol: 'smtp', host: '0.0.0.0', port: 25, proxyProtocol: { from: ['192.0.2.0/28'] } }],
});

/** A membership whose rows a test sets. */
function members(rows: Row[]) {
  const listeners = new Set<() => void>();
  return {
    nodes: () => rows.map((row, at) => ({ row, isSelf: at === 0 }) as NodeView),
    onChange(listener: () => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    change(next: Row[]) {
      rows = next;
      for (const listener of listeners) listener();
    },
    listeners,
  };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('addresses of our own', () => {
  it('are those of proxies and members, names resolved, however they are written; wildcards are nobody’s', async () => {
    const membership = members([
      rowOf([{ host: '0.0.0.0' }], ['198.51.100.1']),
      rowOf([{ host: '2001:db8::1' }], ['two.test', 'gone.test']),
    ]);
    const own = new OwnAddresses();
    expect(own.has('198.51.100.1')).toBe(false);
    own.follow({
      config,
      membership,
      logger: silentLogger,
      resolve: async (host) => {
        if (host === 'gone.test') throw new Error('NXDOMAIN');
        return ['203.0.113.2'];
      },
    });
    expect(own.has('192.0.2.5')).toBe(true);
    await settled();
    for (const address of ['198.51.100.1', '203.0.113.2', '2001:DB8:0:0::1', '2001:db8::1']) expect(own.has(address)).toBe(true);
    for (const address of ['0.0.0.0', '198.51.100.2', '192.0.2.16', '']) expect(own.has(address)).toBe(false);
    membership.change([rowOf([{ host: '198.51.100.9' }])]);
    await settled();
    expect([own.has('198.51.100.9'), own.has('198.51.100.1')]).toEqual([true, false]);
    own.stop();
    expect(membership.listeners.size).toBe(0);
  });
});

describe('a member known by its name', () => {
  it('is not forgotten while the name service is away, and an early answer that comes late changes nothing', async () => {
    const rows = [rowOf([{ host: 'one.test' }])];
    const membership = members(rows);
    const answers: ((answer: string[] | Error) => void)[] = [];
    const own = new OwnAddresses();
    const resolve = () =>
      new Promise<string[]>((good, bad) => answers.push((answer) => (answer instanceof Error ? bad(answer) : good(answer))));
    own.follow({ config, membership, logger: silentLogger, resolve });
    answers[0]!(['203.0.113.1']);
    await settled();
    expect(own.has('203.0.113.1')).toBe(true);
    membership.change(rows);
    answers[1]!(new Error('SERVFAIL'));
    await settled();
    expect(own.has('203.0.113.1')).toBe(true);
    membership.change(rows);
    membership.change(rows);
    answers[3]!(['203.0.113.4']);
    await settled();
    answers[2]!(['203.0.113.3']);
    await settled();
    expect([own.has('203.0.113.4'), own.has('203.0.113.3')]).toEqual([true, false]);
    own.stop();
  });
});

describe('where the installation listens for mail', () => {
  it('is where this node does, and others at addresses that are their own', () => {
    const nodes = [
      { isSelf: true, row: rowOf([{ host: '0.0.0.0' }]) },
      {
        isSelf: false,
        row: rowOf([
          { host: '0.0.0.0' },
          { host: '198.51.100.2', port: 26 },
          { host: '198.51.100.2', port: 143, protocol: 'imap' },
        ]),
      },
    ];
    const { endpoints, interfaces } = ownEndpoints(config, nodes);
    expect(endpoints).toEqual([
      { address: '0.0.0.0', port: 25 },
      { address: '198.51.100.2', port: 26 },
    ]);
    expect(interfaces).toContain('127.0.0.1');
  });
});
