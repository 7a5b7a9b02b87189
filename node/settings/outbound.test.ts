/** Section `outbound`: what may be set, what is kept sealed, what deliveries are given. */
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { createSealer, openSettings } from '../../store/settings/index.js';
import { defaultOutboundSettings } from '../mailflow/outbound/contract.js';
import { liveMailflowSettings } from './mailflow.js';
import { outboundSettings } from './outbound.js';
import { type NodeSettings, settingsRegistry } from './sections.js';

const open = (): Promise<NodeSettings> =>
  openSettings({
    kv: openMemoryStore({ database: new MemoryDatabase() }),
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    sealer: createSealer([Buffer.alloc(32, 1)], systemRandom),
    registry: settingsRegistry,
  });
const me = { who: 'tester' };
const cloud = { name: 'cloud', kind: 'relay', hosts: [{ host: 'r.test' }], tls: 'verified', user: 'u', password: 'hunter22' };

describe('outbound', () => {
  it('is by default what deliveries have without settings', async () => {
    const settings = await open();
    const { timeouts, ...made } = outboundSettings(settings.opened('outbound'));
    const constant = { route: "''", heloName: "''", sourceAddress4: "''", sourceAddress6: "''" };
    const { timeouts: _, ...defaults } = defaultOutboundSettings;
    expect(made).toEqual({ ...defaults, ...constant });
    expect(timeouts).toMatchObject({ connectMs: 30_000, greetingMs: 300_000, dataTerminationMs: 600_000 });
  });

  it('keeps the secrets of routes sealed, shows them masked, and hands them to deliveries', async () => {
    const settings = await open();
    const relay = { ...cloud, name: 'token', password: undefined, token: 'sesame-open' };
    const routes = [cloud, JSON.parse(JSON.stringify(relay)) as object];
    await settings.change({ replace: { outbound: { routes, route: "size > 1000 ? 'cloud' : 'token'" } } }, me);
    const shown = JSON.stringify([settings.current, settings.explicit(), await settings.history()]);
    expect(shown).not.toMatch(/hunter22|sesame-open/);
    const { outbound } = liveMailflowSettings(settings, 'mx.test')();
    expect(outbound.routes).toMatchObject([
      { name: 'cloud', password: 'hunter22' },
      { name: 'token', token: 'sesame-open' },
    ]);
    // A masked secret that comes back stays what it is, also when the routes change places.
    const masked = settings.current.outbound.routes;
    await settings.change({ replace: { outbound: { routes: [masked[1], masked[0]] } } }, me);
    expect(liveMailflowSettings(settings, 'mx.test')().outbound.routes).toMatchObject([
      { name: 'token', token: 'sesame-open' },
      { name: 'cloud', password: 'hunter22' },
    ]);
  });

  it('takes every route that has a meaning, also as one of several constants', async () => {
    const settings = await open();
    const route = JSON.parse(
      `[{"if": "rcpt_domain == 'a.test'", "then": "'local'"}, {"if": "size > 1", "then": "'mx'"}, {"else": "''"}]`,
    );
    await settings.change({ replace: { outbound: { route } } }, me);
    expect(settings.current.outbound.route).toEqual(route);
  });

  it('keeps words as they were always written, and hands expressions to deliveries as they are', async () => {
    const settings = await open();
    const words = { addressOrder: 'prefer4', eightBit: 'return' };
    await settings.change({ replace: { outbound: words } }, me);
    expect(settings.explicit()).toEqual({ outbound: words });
    expect(outboundSettings(settings.opened('outbound'))).toMatchObject(words);
    const chosen = {
      addressOrder: "retry_num > 0 ? 'only4' : 'prefer6'",
      // biome-ignore lint/suspicious/noThenProperty: it is what settings are written with
      eightBit: [{ if: "mx_ip == ''", then: 'send' }, { else: 'return' }],
    };
    await settings.change({ replace: { outbound: chosen } }, me);
    expect(outboundSettings(settings.opened('outbound'))).toMatchObject(chosen);
  });

  it.each([
    ['a route without hosts', { routes: [{ name: 'x', kind: 'relay' }] }, /outbound\.routes\.0\.hosts/],
    ['mx with hosts', { routes: [{ ...cloud, kind: 'mx' }] }, /mx has none/],
    ['a login for whoever answers', { routes: [{ ...cloud, tls: 'required' }] }, /whoever answers/],
    ['a login without a secret', { routes: [{ ...cloud, password: undefined }] }, /go together/],
    ['two secrets', { routes: [{ ...cloud, token: 't' }] }, /either/],
    ['two routes of a name', { routes: [cloud, cloud] }, /names are given once/],
    ['a name that has a meaning', { routes: [{ ...cloud, name: 'mx' }] }, /meaning/],
    [
      'a route that is not there',
      { route: JSON.parse(`[{"if": "size > 1", "then": "'nowhere'"}, {"else": "''"}]`) as unknown },
      /there is no route 'nowhere'/,
    ],
    ['a TLS that there is not', { tls: "'perhaps'" }, /'perhaps' is none of/],
    ['an expression that is none, where routes are looked at', { route: 'size >' }, /outbound\.route: line 1, column \d+/],
    [
      'an order that there is not',
      { addressOrder: 'prefer7' },
      /outbound\.addressOrder: line 1, column 1: 'prefer7' is none of prefer6/,
    ],
    [
      'an order by a host that is not known yet',
      { addressOrder: "mx == 'mx.test' ? 'only4' : 'prefer6'" },
      /outbound\.addressOrder: line 1, column 1: .*'mx'/,
    ],
    ['a number for eight bits', { eightBit: 8 }, /outbound\.eightBit: line 1, column 1: /],
    [
      'a condition that is none for eight bits',
      { eightBit: JSON.parse(`[{"if": "size", "then": "send"}]`) as unknown },
      /outbound\.eightBit\.0\.if: \[0\]\.if, line 1, column 1: /,
    ],
    ['a rate over what is not known', { rates: [{ name: 'x', match: "helo == 'x'", count: 1, periodSeconds: 1 }] }, /helo/],
  ])('refuses %s', async (_what, value, message) => {
    const settings = await open();
    const change = settings.change({ replace: { outbound: JSON.parse(JSON.stringify(value)) as object } }, me);
    await expect(change).rejects.toThrow(message);
  });
});
