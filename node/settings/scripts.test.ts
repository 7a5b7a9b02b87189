/** Sections `scripts` and `accept.….script`: what is refused when it is saved, and what the stages get. */
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { createSealer, openSettings } from '../../store/settings/index.js';
import { liveAcceptStages } from './accept.js';
import { type NodeSettings, settingsRegistry } from './sections.js';

const opened: NodeSettings[] = [];
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
});

async function open() {
  const kv = openMemoryStore({ database: new MemoryDatabase() });
  const sealer = createSealer([Buffer.alloc(32, 1)], systemRandom);
  const parts = { kv, clock: systemClock, random: systemRandom, logger: silentLogger };
  const settings = await openSettings({ ...parts, sealer, registry: settingsRegistry });
  opened.push(settings);
  const stages = liveAcceptStages(settings, { logger: silentLogger, clock: systemClock });
  const set = (...pairs: [path: string, value: unknown][]) =>
    settings.change({ set: pairs.map(([path, value]) => ({ path, value })) }, { who: 'tester' });
  return { settings, stages, set };
}

describe('a script that is saved', () => {
  it('is refused with its name, the place, and a sentence', async () => {
    const { set } = await open();
    await expect(set(['scripts.sieve.greet', 'require "reject";\nif true { rejct "no"; }'])).rejects.toThrow(
      /scripts\.sieve\.greet: the script greet: line 2, column 11: there is no command 'rejct'/,
    );
    for (const extension of ['fileinto', 'vacation', 'enotify', 'duplicate', 'imap4flags'])
      await expect(set(['scripts.sieve.greet', `require "${extension}";`])).rejects.toThrow(`no extension '${extension}'`);
  });

  it('has a name that settings, logs and metrics can hold, and few others beside it', async () => {
    const { set } = await open();
    for (const name of ['Big', 'a b', '', '-a'])
      await expect(set([`scripts.sieve.${JSON.stringify(name)}`, 'keep;'])).rejects.toThrow();
    const many = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`s${i}`, 'keep;']));
    await expect(set(['scripts.sieve', many])).rejects.toThrow('at most 100 scripts');
    await expect(set(['scripts.sieve.long', `#${'x'.repeat(70_000)}\n`])).rejects.toThrow(/scripts\.sieve\.long/);
  });
});

describe('a stage that names a script', () => {
  it('names one that is there, in the same change or before; it is not taken away while it is named', async () => {
    const { set, settings } = await open();
    await expect(set(['accept.mail.script', "'missing'"])).rejects.toThrow(
      "accept.mail.script: there is no script 'missing' in the section scripts",
    );
    await set(['scripts.sieve.one', 'keep;'], ['accept.mail.script', "'one'"]);
    await expect(settings.change({ unset: ['scripts.sieve.one'] }, { who: 'tester' })).rejects.toThrow("no script 'one'");
    // biome-ignore lint/suspicious/noThenProperty: it is what settings are written with
    const branches = [{ if: "sender == ''", then: "'one'" }, { else: "'two'" }];
    await expect(set(['accept.mail.script', branches])).rejects.toThrow("no script 'two'");
    await expect(set(['accept.mail.script', "sender == '' ? 'one' : sender_domain"])).resolves.toMatchObject({ isChanged: true });
  });

  it('names one that may run there', async () => {
    const { set } = await open();
    await set(
      ['scripts.sieve.away', 'redirect "a@b.test";'],
      ['scripts.sieve.edit', 'require "editheader"; addheader "X-A" "1";'],
    );
    for (const stage of ['connect', 'ehlo', 'auth', 'mail'])
      await expect(set([`accept.${stage}.script`, "'away'"])).rejects.toThrow(
        `the script away can't run at ${stage}: line 1, column 1: 'redirect' can't be used here: there is no recipient yet`,
      );
    await expect(set(['accept.rcpt.script', "'edit'"])).rejects.toThrow("there is no extension 'editheader' here");
    await set(['scripts.sieve.drop', 'discard;']);
    await expect(set(['accept.auth.script', "'drop'"])).rejects.toThrow('there is no mail yet that could be thrown away');
    await set(['accept.mail.script', "'drop'"], ['accept.rcpt.script', "'away'"], ['accept.data.script', "'edit'"]);
  });
});

describe('the stages', () => {
  it('have no scripts where none is named, whatever scripts there are', async () => {
    const { set, stages } = await open();
    await set(['scripts.sieve.one', 'keep;']);
    expect(stages().scripts).toBeUndefined();
    await set(['accept.data.script', "'one'"]);
    expect(Object.keys(stages().scripts!.at)).toEqual(['data']);
  });

  it('get a script compiled once, and its successor after a change', async () => {
    const { set, stages } = await open();
    await set(['scripts.sieve.one', 'keep;'], ['accept.mail.script', "'one'"]);
    const { scripts } = stages();
    const compiled = scripts!.compiled('mail', 'one');
    expect(scripts!.compiled('mail', 'one')).toBe(compiled);
    expect(scripts!.compiled('mail', 'constructor')).toBeUndefined();
    expect(scripts!.textOf('one')).toBe('keep;');
    await set(['scripts.sieve.one', 'require "reject"; reject "No";']);
    expect(stages().scripts!.compiled('mail', 'one')!.required).toEqual(['reject']);
  });
});
