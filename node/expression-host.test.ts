import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { SystemResolver } from '../protocols/dns/index.js';
import { createDirectory } from '../store/directory/index.js';
import { MemoryDatabase, openMemoryStore } from '../store/kv/index.js';
import { createLimits } from '../store/limits/index.js';
import { createLookups } from '../store/lookups/index.js';
import { createExpressionHost } from './expression-host.js';
import { type DnsServer, startDnsServer } from './mailflow/testing/dns-server.js';

let dns: DnsServer;
let stop: () => Promise<void>;
afterEach(() => Promise.all([dns.close(), stop()]));

async function start() {
  const parts = {
    kv: openMemoryStore({ database: new MemoryDatabase() }),
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  };
  const directory = createDirectory(parts);
  const lookups = createLookups(parts);
  const limits = createLimits({ ...parts, nodeId: () => 'a' });
  stop = () => limits.stop();
  dns = await startDnsServer();
  const resolver = new SystemResolver({ servers: [dns.address], timeoutMs: 300, tries: 1 });
  return { directory, lookups, host: createExpressionHost({ ...parts, directory, lookups, resolver, rates: limits.rates }) };
}

describe('what expressions ask of a node', () => {
  it('is answered by the directory, the look-up lists and the counters', async () => {
    const { directory, lookups, host } = await start();
    await directory.createDomain('example.test');
    await directory.createPrincipal({ kind: 'account', address: 'alice@example.test' });
    await lookups.set('blocked', [{ key: 'x@y.test', value: 'since May' }]);
    expect(await host.isLocalDomain('example.test')).toBe(true);
    expect(await host.isLocalDomain('elsewhere.test')).toBe(false);
    expect(await host.isLocalAddress('alice@example.test')).toBe(true);
    expect(await host.isLocalAddress('bob@example.test')).toBe(false);
    expect(await host.keyExists('blocked', 'X@y.test')).toBe(true);
    expect([await host.keyGet('blocked', 'X@Y.test'), await host.keyGet('blocked', 'z')]).toEqual(['since May', '']);
    expect([await host.counter('c', 'k', 60), await host.counter('c', 'k', 60)]).toEqual([1, 2]);
  });

  it('is answered by the name service, which says when it can not tell', async () => {
    const { host } = await start();
    dns.records.set('host.test A', ['192.0.2.1']);
    dns.records.set('broken.test A', 'failure');
    expect(await host.dnsQuery('host.test', 'a')).toEqual(['192.0.2.1']);
    expect(await host.dnsQuery('absent.test', 'A')).toEqual([]);
    await expect(host.dnsQuery('broken.test', 'A')).rejects.toThrow('could not be found out');
    await expect(host.dnsQuery('host.test', 'SRV')).rejects.toThrow('not SRV');
  });
});
