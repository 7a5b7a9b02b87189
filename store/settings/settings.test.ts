import { describe, expect, it } from 'vitest';
import { registry, silentLogger } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../kv/index.js';
import { SettingsError, secretMask, settingsLimits } from './contract.js';
import { isKnownPath, isSecretPath, sectionSchemas } from './schema.js';
import { clusterKey, me, openNode, openNodeOf, testRegistry, testSections, twoStores } from './test-bench.js';

const relay = { host: 'relay.test', password: 'hunter22' };
const refused = (work: Promise<unknown>) =>
  work.then(
    () => expect.unreachable('it was taken'),
    (error: unknown) => error as SettingsError,
  );

describe('settings', () => {
  it('work in an empty installation, and can not be changed by who reads them', async () => {
    const settings = await openNode();
    expect(settings.version).toBe(0);
    expect(settings.current.limits).toEqual({ maxItems: 10, names: [], note: '' });
    expect(settings.explicit()).toEqual({});
    expect(() => Object.assign(settings.current.limits, { maxItems: 1 })).toThrow(TypeError);
    expect(() => (settings.current.limits.names as string[]).push('x')).toThrow(TypeError);
  });

  it('are set, unset and replaced; the history says who did what', async () => {
    const settings = await openNode();
    const before = settings.current;
    const first = await settings.change({ set: [{ path: 'limits.maxItems', value: 20 }] }, { who: 'ann', comment: 'more' });
    expect(first).toEqual({ version: 1, isChanged: true, changes: [{ path: 'limits.maxItems', new: 20 }] });
    expect(settings.current.limits.maxItems).toBe(20);
    expect(before.limits.maxItems).toBe(10);
    await settings.change({ replace: { limits: { note: 'hello' } } }, { who: 'bob' });
    expect(settings.current.limits).toEqual({ maxItems: 10, names: [], note: 'hello' });
    await settings.change({ unset: ['limits'] }, { who: 'cat' });
    expect(settings.explicit()).toEqual({});
    const history = await settings.history();
    expect(history.map(({ version, who, comment }) => [version, who, comment])).toEqual([
      [3, 'cat', ''],
      [2, 'bob', ''],
      [1, 'ann', 'more'],
    ]);
    expect(history[1]!.changes).toEqual([
      { path: 'limits.maxItems', old: 20 },
      { path: 'limits.note', new: 'hello' },
    ]);
    expect(await settings.history({ limit: 1 })).toHaveLength(1);
    expect((await settings.show(1)).sections).toEqual({ limits: { maxItems: 20 } });
  });

  it('make no version when nothing changes', async () => {
    const settings = await openNode();
    const edit = { replace: { limits: { maxItems: 3 }, peers: { relay } } };
    await settings.change(edit, me);
    expect(await settings.change(edit, me)).toEqual({ version: 1, isChanged: false, changes: [] });
    expect(await settings.history()).toHaveLength(1);
  });

  it.each([
    ['an unknown section', { replace: { nonsense: {} } }, 'unknown-path', /there is no section 'nonsense'.*limits, peers/],
    ['an unknown field', { set: [{ path: 'limits.maxItem', value: 1 }] }, 'invalid', /limits\.maxItem: there is no such setting/],
    ['a wrong value', { set: [{ path: 'limits.maxItems', value: 'many' }] }, 'invalid', /limits\.maxItems: .*number/],
    ['a value out of bounds', { set: [{ path: 'limits.maxItems', value: 0 }] }, 'invalid', /limits\.maxItems/],
    ['half an object', { set: [{ path: 'peers.relay.port', value: 1 }] }, 'invalid', /peers\.relay\.host/],
    ['what is no path', { set: [{ path: 'limits..x', value: 1 }] }, 'unknown-path', /not a path/],
    ['a place that has no parts', { set: [{ path: 'limits.note.x', value: 1 }] }, 'invalid', /limits\.note/],
    ['what JSON has not', { set: [{ path: 'limits.note', value: new Date() }] }, 'invalid', /limits\.note/],
    ['a section that is none', { replace: { limits: 'text' } }, 'invalid', /limits/],
    [
      'too much',
      { set: [{ path: 'limits.note', value: 'x'.repeat(settingsLimits.maxSectionBytes) }] },
      'too-large',
      /limits would take/,
    ],
    [
      'what does not fit another section',
      { replace: { limits: { maxItems: 1 }, peers: { list: ['a', 'b'].map((name) => ({ name, key: 'k' })) } } },
      'invalid',
      /peers\.list: longer than limits\.maxItems/,
    ],
  ])('refuse %s, and all that came with it', async (_what, edit, code, message) => {
    const settings = await openNode();
    const error = await refused(settings.change({ ...edit, unset: ['limits.names'] }, me));
    expect(error).toBeInstanceOf(SettingsError);
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    expect(settings.version).toBe(0);
    expect(await settings.history()).toEqual([]);
  });

  it('go back to an old version, as a new one, if it is still valid', async () => {
    const settings = await openNode();
    await settings.change({ replace: { limits: { maxItems: 5 }, peers: { relay } } }, me);
    await settings.change({ replace: { limits: { maxItems: 6 }, peers: {} } }, me);
    expect(await settings.rollback(1, me)).toMatchObject({ version: 3, isChanged: true });
    expect(settings.current.limits.maxItems).toBe(5);
    expect(settings.opened('peers').relay?.password).toBe('hunter22');
    expect((await settings.history())[0]).toMatchObject({ version: 3, rollbackTo: 1 });
    expect(await settings.rollback(1, me)).toMatchObject({ version: 3, isChanged: false });
    expect((await refused(settings.rollback(9, me))).code).toBe('no-such-version');
    expect((await refused(settings.rollback(1, { ...me, expectedVersion: 1 }))).code).toBe('version-changed');
    // The same store, by a version of the software that allows less.
    const checks = [() => [{ path: 'limits.maxItems', message: 'not any more' }]];
    const kv = openMemoryStore();
    const lax = await openNode({ kv });
    await lax.change({ replace: { limits: { maxItems: 5 } } }, me);
    await lax.change({ replace: { limits: {} } }, me);
    const strict = await openNode({
      kv,
      registry: { ...testRegistry, checks: [({ limits }) => (limits.maxItems === 5 ? checks[0]!() : [])] },
    });
    expect((await refused(strict.rollback(1, me))).message).toMatch(/not any more/);
  });

  it('keep the last versions only, each of them whole', async () => {
    const kv = openMemoryStore();
    const settings = await openNode({ kv });
    await settings.change({ set: [{ path: 'peers.relay', value: relay }] }, me);
    const count = settingsLimits.maxVersions + 20;
    for (let n = 2; n <= count; n++) await settings.change({ set: [{ path: 'limits.maxItems', value: n }] }, me);
    const history = await settings.history();
    expect([history.length, history[0]!.version, history.at(-1)!.version]).toEqual([settingsLimits.maxVersions, count, 21]);
    expect((await refused(settings.show(20))).code).toBe('no-such-version');
    expect((await settings.show(21)).sections).toEqual({
      limits: { maxItems: 21 },
      peers: { relay: { ...relay, password: secretMask } },
    });
    const { keysUnder, subspace } = await import('../keyspace.js');
    const { begin, end } = keysUnder(subspace.settings);
    const rows = await kv.read((reads) => reads.getRange(begin, end));
    // Head, key check, the versions, as many contents of the one section, one of the other.
    expect(rows).toHaveLength(2 + 2 * settingsLimits.maxVersions + 1);
    await settings.rollback(21, me);
    expect(settings.current.limits.maxItems).toBe(21);
  });
});

describe('secrets', () => {
  it('are shown to nobody but who opens them', async () => {
    const kv = openMemoryStore();
    const logged: string[] = [];
    const logger = Object.assign(Object.create(silentLogger) as typeof silentLogger, {
      info: (...args: unknown[]) => logged.push(JSON.stringify(args)),
    });
    const settings = await openNode({ kv, logger });
    const result = await settings.change({ set: [{ path: 'peers.relay', value: relay }] }, me);
    await settings.change({ set: [{ path: 'peers.byName."a.b"', value: { key: 'hunter22' } }] }, me);
    expect(settings.opened('peers')).toMatchObject({ relay, byName: { 'a.b': { key: 'hunter22' } } });
    expect(settings.current.peers.relay).toEqual({ ...relay, port: 25, password: secretMask });
    expect(() => Object.assign(settings.opened('peers').relay!, { host: 'x' })).toThrow(TypeError);
    const rows = await kv.read((reads) => reads.getRange(Buffer.of(0), Buffer.of(255)));
    const seen = [result, settings.current, settings.explicit(), await settings.history(), await settings.show(2), logged];
    expect(JSON.stringify([seen, settings])).not.toContain('hunter22');
    expect(logged.join()).toContain('peers.relay.password');
    expect(rows.length).toBeGreaterThan(3);
    for (const { value } of rows) expect(value.includes('hunter22')).toBe(false);
    expect((await refused(settings.change({ set: [{ path: 'peers.relay.password', value: 'abc' }] }, me))).message).not.toContain(
      'abc',
    );
  });

  it('stay when their mask is set back, and are found again in lists by name', async () => {
    const settings = await openNode();
    await settings.change({ replace: { peers: { relay, list: ['a', 'b'].map((name) => ({ name, key: `key-${name}` })) } } }, me);
    const shown = JSON.parse(JSON.stringify(settings.explicit())) as { peers: { list: unknown[] } };
    expect(await settings.change({ replace: shown }, me)).toMatchObject({ isChanged: false });
    shown.peers.list.reverse();
    await settings.change({ replace: shown }, me);
    expect(settings.opened('peers').list).toEqual(['b', 'a'].map((name) => ({ name, key: `key-${name}` })));
    await settings.change({ set: [{ path: 'peers.relay', value: { host: 'other.test', password: secretMask } }] }, me);
    expect(settings.opened('peers').relay).toMatchObject({ host: 'other.test', password: 'hunter22' });
    const added = { replace: { peers: { list: [{ name: 'c', key: secretMask }] } } };
    expect((await refused(settings.change(added, me))).message).toMatch(/peers\.list\.0\.key: there is no secret yet/);
    expect((await settings.history())[0]!.changes).toEqual([{ path: 'peers.relay.host', old: 'relay.test', new: 'other.test' }]);
  });

  it('that change are changes, though all that is shown is the mask', async () => {
    const settings = await openNode();
    await settings.change({ replace: { peers: { relay } } }, me);
    const heard: (readonly string[])[] = [];
    settings.onChange((_now, _before, changed) => void heard.push(changed));
    const result = await settings.change({ set: [{ path: 'peers.relay.password', value: 'another-one' }] }, me);
    expect(result.changes).toEqual([{ path: 'peers.relay.password', old: secretMask, new: secretMask }]);
    expect(heard).toEqual([['peers.relay.password']]);
    await settings.rollback(1, me);
    expect(settings.opened('peers').relay?.password).toBe('hunter22');
  });

  it('move to a new cluster key, history included', async () => {
    const kv = openMemoryStore();
    const fresh = Buffer.alloc(32, 8);
    const settings = await openNode({ kv });
    await settings.change({ replace: { peers: { relay } } }, me);
    await settings.change({ replace: { peers: { relay: { ...relay, password: 'hunter33' } } } }, me);
    const both = await openNode({ kv, keys: [fresh, clusterKey] });
    expect(await both.reseal()).toBe(3);
    expect(await both.reseal()).toBe(0);
    const later = await openNode({ kv, keys: [fresh] });
    expect(later.opened('peers').relay?.password).toBe('hunter33');
    await later.rollback(1, me);
    expect(later.opened('peers').relay?.password).toBe('hunter22');
    expect((await refused(openNode({ kv }))).code).toBe('wrong-key');
  });

  it('stay sealed with the old key while there is a section that this version does not know', async () => {
    const kv = openMemoryStore();
    const newer = { sections: { ...testSections, newer: { ...testSections.limits } } };
    const newest = await openNodeOf({ kv, registry: newer });
    await newest.change({ replace: { newer: { maxItems: 5 } } }, me);
    const older = await openNode({ kv, keys: [Buffer.alloc(32, 8), clusterKey] });
    const error = await refused(older.reseal());
    expect(error.message).toMatch(/newer/);
    await openNode({ kv, keys: [clusterKey] });
  });

  it('of a store with another cluster key stop a node with one sentence', async () => {
    const [one, two] = twoStores();
    await openNode({ kv: one });
    const error = await refused(openNode({ kv: two, keys: [Buffer.alloc(32, 9)] }));
    expect(error.code).toBe('wrong-key');
    expect(error.message).toMatch(/^the secrets in this store are sealed with another cluster key [^\n]+$/);
  });
});

describe('listeners', () => {
  it('hear what changed, harm nobody, and can leave', async () => {
    const settings = await openNode();
    const heard: unknown[] = [];
    settings.onChange(() => {
      throw new Error('no');
    });
    settings.onChange(async () => {
      throw new Error('no, later');
    });
    const leave = settings.onChange(
      (now, before, changed) => void heard.push([now.limits.maxItems, before.limits.maxItems, changed]),
    );
    await settings.change({ set: [{ path: 'limits.maxItems', value: 4 }] }, me);
    // Explicitly what is the default anyway: a version, but no change for anybody.
    await settings.change({ set: [{ path: 'limits.note', value: '' }] }, me);
    leave();
    await settings.change({ set: [{ path: 'limits.maxItems', value: 5 }] }, me);
    expect(heard).toEqual([[4, 10, ['limits.maxItems']]]);
    const failures = await registry.getSingleMetric('starling_settings_listener_failures_total')!.get();
    expect(failures.values[0]!.value).toBe(4);
  });
});

describe('what can be set', () => {
  it('is described as JSON Schema, secrets marked', () => {
    const schema = JSON.parse(JSON.stringify(sectionSchemas(testRegistry))) as {
      properties: {
        limits: object;
        peers: { properties: { relay: { properties: { password: object } }; list: { items: object } } };
      };
    };
    expect(schema.properties.limits).toMatchObject({ title: 'limits', description: 'How much', additionalProperties: false });
    expect(schema.properties.peers.properties.relay.properties.password).toMatchObject({ type: 'string', writeOnly: true });
    expect(schema.properties.peers.properties.list.items).toMatchObject({ properties: { key: { writeOnly: true } } });
    const known = (path: string) => isKnownPath(testRegistry, path);
    expect(['limits', 'limits.maxItems', 'peers.relay.host', 'peers.list.0.name', 'peers.byName."x.y".size'].every(known)).toBe(
      true,
    );
    expect(['nonsense', 'limits.x', 'peers.list.x', 'limits.maxItems.x', 'toString'].some(known)).toBe(false);
    expect(['peers.relay.password', 'peers.byName.x.key'].every((path) => isSecretPath(testRegistry, path))).toBe(true);
    expect(isSecretPath(testRegistry, 'peers.relay.host')).toBe(false);
  });
});
