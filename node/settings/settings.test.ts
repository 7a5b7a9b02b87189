import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { createSealer, openSettings } from '../../store/settings/index.js';
import { type OperationArguments, OperationRefused } from '../api/operation.js';
import { settingsOperations } from '../api/settings-operations.js';
import { quickstartSettings } from '../config/quickstart.js';
import { liveMailflowSettings } from './mailflow.js';
import { applyFirstSettings, readFirstSettings } from './open.js';
import { type NodeSettings, settingsRegistry } from './sections.js';
import { imapLimits, smtpLimits } from './sessions.js';

const folder = mkdtempSync(join(tmpdir(), 'starling-settings-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function open(database = new MemoryDatabase()): Promise<NodeSettings> {
  return openSettings({
    kv: openMemoryStore({ database }),
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    sealer: createSealer([Buffer.alloc(32, 1)], systemRandom),
    registry: settingsRegistry,
  });
}

const file = (text: string) => {
  const path = join(folder, 'settings.toml');
  writeFileSync(path, text);
  return path;
};

const me = { who: 'tester' };
const relay = { host: 'relay.test', user: 'me', password: 'hunter22' };

describe('live settings', () => {
  it('reach new messages and sessions, and are made anew only after a change', async () => {
    const settings = await open();
    const mailflow = liveMailflowSettings(settings, 'mx.test');
    const before = mailflow();
    expect(before).toMatchObject({ hostname: 'mx.test', smtpPort: 25, senderMustMatch: true, messageLifetimeSeconds: 432_000 });
    expect(before.relayHost).toBeUndefined();
    expect(mailflow()).toBe(before);
    await settings.change(
      {
        replace: {
          smtp: { mustMatchSender: false, maxRecipients: 7, commandTimeoutSeconds: 2 },
          imap: { autoLogoutSeconds: 5 },
          outbound: { port: 26, relay, retryScheduleSeconds: [1], expireAfterSeconds: 60 },
        },
      },
      me,
    );
    expect(mailflow()).toMatchObject({
      smtpPort: 26,
      senderMustMatch: false,
      retryDelaysSeconds: [1],
      messageLifetimeSeconds: 60,
    });
    // What is shown is masked; what logs in is not.
    expect(mailflow().relayHost).toEqual({ ...relay, port: 587, tls: 'required' });
    expect(settings.current.outbound.relay?.password).not.toBe(relay.password);
    expect(smtpLimits(settings.current)).toMatchObject({ maxRecipients: 7, commandTimeoutMs: 2_000 });
    expect(imapLimits(settings.current)).toMatchObject({ idleTimeoutMs: 5_000 });
    expect(before.smtpPort).toBe(25);
  });

  it.each([
    ['a password that would go out in the clear', { ...relay, tls: 'none' }, /outbound\.relay\.tls/],
    ['a user without a password', { host: 'relay.test', user: 'me' }, /go together/],
  ])('refuse %s', async (_what, value, message) => {
    const settings = await open();
    await expect(settings.change({ set: [{ path: 'outbound.relay', value }] }, me)).rejects.toThrow(message);
  });
});

describe('first settings', () => {
  it('are taken once, though several nodes start with their own', async () => {
    const database = new MemoryDatabase();
    const nodes = await Promise.all([open(database), open(database), open(database)]);
    await Promise.all(
      nodes.map((node, at) => applyFirstSettings(node, { smtp: { maxRecipients: 10 + at } }, `node ${at}`, silentLogger)),
    );
    const values = nodes.map(({ current }) => current.smtp.maxRecipients);
    expect(new Set(values).size).toBe(1);
    expect(await nodes[0]!.history()).toHaveLength(1);
    await applyFirstSettings(nodes[1]!, { smtp: { maxRecipients: 50 } }, 'late', silentLogger);
    expect(nodes[1]!.version).toBe(1);
  });

  it('lie over the presets by field, and are judged without a store', () => {
    const first = readFirstSettings(file('[directory]\n[smtp]\nmaxRecipients = 5\n'), systemRandom, quickstartSettings);
    expect(first).toEqual({ directory: { minPasswordCharacters: 1 }, smtp: { maxRecipients: 5 } });
    const bad = file('[smtp]\nmaxRecipients = 0\n[nonsense]\n[outbound.relay]\nhost = "x"\npassword = "s3cret"\n');
    expect(() => readFirstSettings(bad, systemRandom)).toThrow(/settings\.toml is not valid: (?!.*s3cret)/);
  });
});

describe('operations on settings', () => {
  const run = async (settings: NodeSettings, name: string, ...args: [string[]?, OperationArguments['flags']?]) =>
    settingsOperations[name]!.run(
      { stores: { settings } as never },
      { positionals: args[0] ?? [], flags: { who: 'ann', ...args[1] } },
    );
  const refusal = (work: Promise<unknown>) =>
    work.then(
      () => expect.unreachable('it was done'),
      (error: unknown) => {
        expect(error).toBeInstanceOf(OperationRefused);
        return (error as Error).message;
      },
    );

  it('take values in TOML, in JSON, and single words', async () => {
    const settings = await open();
    const values = [
      'outbound.port=26',
      'outbound.retryScheduleSeconds=[1, 2]',
      'smtp.mustMatchSender=false',
      'smtp.bareLineEnds=normalise',
    ];
    await run(settings, 'settings set', [
      ...values,
      'outbound.relay={"host": "relay.test", "port": 465}',
      'outbound.relay.tls="implicit"',
    ]);
    expect(settings.current.outbound).toMatchObject({
      port: 26,
      retryScheduleSeconds: [1, 2],
      relay: { host: 'relay.test', tls: 'implicit' },
    });
    expect(settings.current.smtp).toMatchObject({ mustMatchSender: false, bareLineEnds: 'normalise' });
    expect(await run(settings, 'settings show', ['outbound.relay.port'])).toBe(465);
    expect(await run(settings, 'settings show', ['outbound.relay.user'])).toBeNull();
    await run(settings, 'settings unset', ['outbound.relay']);
    expect(settings.current.outbound.relay).toBeUndefined();
    expect(await run(settings, 'settings history')).toMatchObject([{ version: 2, who: 'ann' }, { version: 1 }]);
    await run(settings, 'settings rollback', ['1']);
    expect(settings.current.outbound.relay?.host).toBe('relay.test');
    expect(await run(settings, 'settings show', ['smtp'], { version: '1' })).toEqual({
      mustMatchSender: false,
      bareLineEnds: 'normalise',
    });
  });

  it('take secrets apart from arguments, and show them to nobody', async () => {
    const settings = await open();
    const secret = ['outbound.relay.password=a=b "c" #d'];
    await run(settings, 'settings set', ['outbound.relay.host=relay.test', 'outbound.relay.user=me'], { secret });
    expect(settings.opened('outbound').relay?.password).toBe('a=b "c" #d');
    const text = 'outbound.relay.password="hunter22"';
    expect(await refusal(run(settings, 'settings set', [text]))).toMatch(
      /is a secret: give it with --secret-file (?!.*hunter22)/,
    );
    expect(await refusal(run(settings, 'settings set', [], { secret: ['smtp.maxRecipients=1'] }))).toMatch(/is no secret/);
    const shown = (await run(settings, 'settings show')) as object;
    expect(JSON.stringify(shown)).not.toContain('a=b');
    // What was shown can be set again.
    await run(settings, 'settings set', ['outbound.relay.password="••••"', 'outbound.port=26']);
    expect(settings.opened('outbound').relay?.password).toBe('a=b "c" #d');
  });

  it('replace the sections that a file names', async () => {
    const settings = await open();
    await run(settings, 'settings set', ['smtp.maxRecipients=5', 'outbound.port=26']);
    await run(settings, 'settings apply', ['FILE'], { text: '[outbound]\nexpireAfterSeconds = 99\n' });
    expect(settings.explicit()).toEqual({ smtp: { maxRecipients: 5 }, outbound: { expireAfterSeconds: 99 } });
    expect(await refusal(run(settings, 'settings apply', ['F'], { text: 'a = "s3cret" x' }))).toMatch(
      /F is not valid TOML \(line 1(?!.*s3cret)/,
    );
  });

  it.each([
    ['set', ['nonsense=1'], {}, /there is no section 'nonsense'/],
    ['set', ['smtp.nonsense=1'], {}, /smtp\.nonsense: there is no such setting/],
    ['set', ['smtp'], {}, /PATH=VALUE/],
    ['set', ['smtp.bareLineEnds=two words'], {}, /neither TOML nor JSON/],
    ['set', [], {}, /nothing to set/],
    ['set', ['smtp.maxRecipients=5'], { 'expected-version': '3' }, /no longer at version 3: nothing was ever set/],
    ['set', ['smtp.maxRecipients=5'], { 'expected-version': 'x' }, /whole number/],
    ['set', ['smtp.__proto__.x=5'], {}, /not a path/],
    ['unset', ['smtp.nonsense'], {}, /there is no setting smtp\.nonsense/],
    ['show', ['smtp.nonsense'], {}, /there is no setting smtp\.nonsense/],
    ['rollback', ['7'], {}, /there is no version 7/],
    ['rollback', ['x'], {}, /a version is a whole number/],
  ])('refuse %s %j %j in a sentence', async (verb, positionals, flags, message) => {
    expect(await refusal(run(await open(), `settings ${verb}`, positionals, flags))).toMatch(message);
  });

  it('say which changes wait for a restart', async () => {
    const settings = await open();
    const result = await run(settings, 'settings set', ['blobs.files.directory="/srv/blobs"']);
    expect(result).toMatchObject({ isChanged: true, note: expect.stringMatching(/^blobs: .*started again/) });
  });
});
