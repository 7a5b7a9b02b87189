import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock } from '../../ops/telemetry/index.js';
import { createStageEvaluator } from '../expressions/index.js';
import { reportPlaceholders, reportText, reportTextProblem, reportTexts } from '../mailflow/report-texts.js';
import { outcomeSettings, virtualQueues } from './queue.js';
import { queue } from './schemas/queue.js';

const evaluator = createStageEvaluator({ logger: silentLogger, clock: systemClock });
const problems = (section: unknown) =>
  queue.safeParse(section).error?.issues.map(({ path, message }) => [path.join('.'), message]);

describe('section queue', () => {
  it('is complete without a word, and asks nobody then', () => {
    const outcomes = outcomeSettings(queue.parse({}));
    expect(outcomes).toMatchObject({ reportLanguages: ['en'], membersPerBatch: 1000, maxReportsPerSenderPerHour: 200 });
    expect([outcomes.scheduleFor, outcomes.reportLanguagesFor]).toEqual([undefined, undefined]);
    expect([outcomes.lists.size, outcomes.schedules.size]).toEqual([0, 0]);
  });

  it('chooses schedules and languages by expression', async () => {
    const section = queue.parse({
      schedules: { patient: { retryDelaysSeconds: [3600], notifyAfterSeconds: [86_400, 172_800], expireAfterSeconds: 864_000 } },
      // biome-ignore lint/suspicious/noThenProperty: that is its name in the settings.
      schedule: [{ if: "queue_name == 'bulk'", then: "'patient'" }, { else: "'default'" }],
      // biome-ignore lint/suspicious/noThenProperty: that is its name in the settings.
      reportLanguagesFor: [{ if: "sender_domain.endsWith('.de')", then: "['de', 'en']" }],
    });
    const outcomes = outcomeSettings(section);
    expect(await outcomes.scheduleFor!({ queue_name: 'bulk' }, evaluator)).toBe('patient');
    expect(await outcomes.scheduleFor!({ queue_name: 'default' }, evaluator)).toBe('default');
    expect(await outcomes.reportLanguagesFor!({ sender_domain: 'x.de' }, evaluator)).toEqual(['de', 'en']);
    expect(await outcomes.reportLanguagesFor!({ sender_domain: 'x.fr' }, evaluator)).toEqual([]);
    expect(outcomes.schedules.get('patient')?.notifyAfterSeconds).toEqual([86_400, 172_800]);
  });

  it('takes lists by their address in small letters, and virtual queues by name', () => {
    const section = queue.parse({
      lists: { 'All@Example.test': { owner: 'boss@example.test', posting: 'members' } },
      virtualQueues: { bulk: { maxConcurrentDeliveries: 4, maxConcurrentPerDomain: 2 } },
    });
    expect(outcomeSettings(section).lists.get('all@example.test')).toMatchObject({ posting: 'members', isVerp: false });
    expect(virtualQueues(section)).toEqual([{ name: 'bulk', maxConcurrentDeliveries: 4, maxConcurrentPerDomain: 2 }]);
  });

  it('takes lists under the address that the directory has for them, in any script', () => {
    const { lists } = outcomeSettings(queue.parse({ lists: { 'Liste@B\u00fccher.test': { posting: 'owners' } } }));
    expect(lists.get('liste@xn--bcher-kva.test')).toMatchObject({ posting: 'owners' });
  });

  it('replaces sentences one by one, and lets languages be added', () => {
    const { reportTexts: texts } = outcomeSettings(
      queue.parse({ reportTexts: { de: { greeting: 'Hier spricht {hostname}.' }, sv: { said: '{host} svarade:' } } }),
    );
    expect(reportText(texts, 'de-AT', 'greeting', { hostname: 'mx' })).toBe('Hier spricht mx.');
    expect(reportText(texts, 'de', 'said', { host: 'x' })).toBe('x antwortete:');
    expect(reportText(texts, 'sv', 'said', { host: 'x' })).toBe('x svarade:');
    expect(reportText(texts, 'sv', 'greeting', { hostname: 'mx' })).toBe('This is the mail system at mx.');
  });

  it('says where something is wrong', () => {
    const schedule = { retryDelaysSeconds: [60], notifyAfterSeconds: [20, 10] };
    expect(problems({ schedules: { a: schedule } })).toEqual([['schedules.a.notifyAfterSeconds', 'they must ascend']]);
    expect(problems({ schedule: 'recipient ==' })?.[0]?.[0]).toBe('schedule');
    expect(problems({ schedule: 'helo' })?.[0]?.[0]).toBe('schedule');
    expect(problems({ reportTexts: { de: { said: '{hots} sagte' } } })).toEqual([
      ['reportTexts.de.said', '{hots} means nothing here: only {host} may stand there'],
    ]);
    expect(problems({ reportTexts: { de: { sed: 'x' } } })).toHaveLength(1);
    expect(problems({ lists: { nobody: {} } })).toHaveLength(1);
    expect(problems({ lists: { 'a@b.test': { unsubscribe: { url: 'http://b.test', isOneClick: true } } } })).toEqual([
      ['lists.a@b.test.unsubscribe.isOneClick', 'needs an https url'],
    ]);
  });
});

describe('the built-in sentences', () => {
  it('are there in every language, with the values that they need', () => {
    const names = Object.keys(reportPlaceholders) as (keyof typeof reportPlaceholders)[];
    for (const [language, texts] of Object.entries(reportTexts)) {
      for (const name of names) {
        expect(texts[name], `${language} ${name}`).toBeTruthy();
        expect(reportTextProblem(name, texts[name]!), `${language} ${name}`).toBeUndefined();
      }
      expect(texts.delayed).toContain('{until}');
      expect(texts.said).toContain('{host}');
      expect(texts.greeting).toContain('{hostname}');
    }
    expect(Object.keys(reportTexts)).toEqual(['en', 'de', 'fr', 'es', 'it', 'nl', 'pt', 'pl', 'ja']);
  });
});
