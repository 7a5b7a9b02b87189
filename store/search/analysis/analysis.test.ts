import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  detectLanguage,
  foldText,
  type QueryRuns,
  queryRuns,
  runLimits,
  splitRuns,
  stemLanguages,
  stemsOf,
  wordsOf,
} from './index.js';

const runsOf = (text: string) => [...splitRuns(foldText(text))];

/** What the index does with demands, in the plainest way. */
function meets(runs: ReadonlySet<string>, query: QueryRuns): boolean {
  const some = (test: (run: string) => boolean) => [...runs].some(test);
  return (
    query.exact.every((run) => runs.has(run)) &&
    (query.suffix === undefined || some((run) => run.endsWith(query.suffix!))) &&
    (query.prefix === undefined || some((run) => run.startsWith(query.prefix!))) &&
    (query.contains === undefined || some((run) => run.includes(query.contains!)))
  );
}

const pieces = fc.oneof(
  { weight: 4, arbitrary: fc.string({ unit: fc.constantFrom('a', 'b', 'É', 'ß', '0', 'Σ', 'İ', 'ﬁ'), maxLength: 12 }) },
  { weight: 1, arbitrary: fc.string({ unit: fc.constantFrom('a', 'b', '𝔘', '𐐀'), minLength: 30, maxLength: 300 }) },
  {
    weight: 2,
    arbitrary: fc.string({ unit: fc.constantFrom('漢', '字', '𠀀', 'か', 'ー', 'ไ', 'ท', 'ย', '😀', '\ufe0f'), maxLength: 5 }),
  },
  { weight: 2, arbitrary: fc.constantFrom(' ', '-', '\n', '. ', '\u0301', '\ud800', '\udc00', '\u200d', '_', '\u3099') },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 5 }) },
);
const texts = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(''));

describe('foldText', () => {
  it('makes one text of capitals, compositions and final sigmas', () => {
    expect(foldText('ÉTÉ')).toBe('été');
    expect(foldText('e\u0301')).toBe('é');
    expect(foldText('J\u030c')).toBe(foldText('ǰ'));
    expect(foldText('ΟΔΟΣ')).toBe(foldText('οδος'));
    expect(foldText('ΟΔΟΣ')).toBe(foldText('ΟΔΟΣΑ').slice(0, -1));
  });

  it('changes nothing the second time', () => {
    fc.assert(
      fc.property(fc.oneof(texts, fc.string({ unit: 'binary' })), (text) => {
        expect(foldText(foldText(text))).toBe(foldText(text));
      }),
    );
  });
});

describe('runs', () => {
  it('are stretches of letters, marks and digits', () => {
    expect(runsOf('Re: [list] Grüße, foo_bar 2026-11-22!')).toEqual(['re', 'list', 'grüße', 'foo', 'bar', '2026', '11', '22']);
    expect(runsOf('')).toEqual([]);
  });

  it('are pairs where a script has no spaces', () => {
    expect(runsOf('漢字仮名 abc漢')).toEqual(['漢字', '字仮', '仮名', '名', 'abc', '漢']);
    expect(runsOf('😀')).toEqual(['😀']);
    expect(runsOf('ภาษา')).toEqual(['ภา', 'าษ', 'ษา', 'า']);
  });

  it('are bounded', () => {
    for (const run of splitRuns('x1'.repeat(5_000))) expect(run.length).toBeLessThanOrEqual(runLimits.maxRunChars);
    expect(splitRuns('q'.repeat(100_000)).size).toBe(1);
  });

  it('are the same as bytes, where a long one is cut within a character', () => {
    // U+1D7CA and so on are digits beyond the first plane; the pieces of what begins with `x` are cut in the middle of one.
    for (const text of [`x${'\u{1d7ca}'.repeat(100)}`, `x${'\u{1d7ca}\u{1d7cb}\u{1d7ce}'.repeat(40)}y`]) {
      const runs = runsOf(text);
      expect(runs.length).toBeGreaterThan(1);
      expect(new Set(runs.map((run) => Buffer.from(run).toString('hex'))).size).toBe(runs.length);
      for (const run of runs) expect(Buffer.from(run).toString()).toBe(run);
      for (const demand of queryRuns(`a ${text} b`).exact) expect(runs).toContain(demand);
      for (const demand of queryRuns(`${text} b`).exact) expect(runs).toContain(demand);
    }
  });
});

describe('demands of a query', () => {
  it('are whole runs inside, and the ends of runs outside', () => {
    expect(queryRuns('foo')).toEqual({ exact: [], contains: 'foo', isWhole: true });
    expect(queryRuns('foo bar baz')).toEqual({ exact: ['bar'], suffix: 'foo', prefix: 'baz', isWhole: false });
    expect(queryRuns('<foo@')).toEqual({ exact: ['foo'], isWhole: false });
    expect(queryRuns('漢')).toEqual({ exact: [], prefix: '漢', isWhole: true });
    expect(queryRuns('漢字')).toEqual({ exact: ['漢字'], isWhole: true });
    expect(queryRuns('漢字仮')).toEqual({ exact: ['漢字', '字仮'], isWhole: false });
    expect(queryRuns('漢。')).toEqual({ exact: ['漢'], isWhole: false });
    expect(queryRuns(' - ')).toEqual({ exact: [], isWhole: false });
    expect(queryRuns('')).toEqual({ exact: [], isWhole: false });
  });

  it('stay few', () => {
    const many = Array.from({ length: 500 }, (_, index) => `w${index}`).join(' ');
    expect(queryRuns(many).exact.length).toBe(runLimits.maxExactRuns);
  });

  it('are met by every text that contains the query', () => {
    fc.assert(
      fc.property(texts, fc.nat(), fc.nat(200), (raw, start, length) => {
        const text = foldText(raw);
        const from = text.length === 0 ? 0 : start % text.length;
        const query = text.slice(from, from + length);
        expect(meets(splitRuns(text), queryRuns(query))).toBe(true);
      }),
      { numRuns: 1_500 },
    );
  });

  it('prove that the text contains the query where they are the whole of it', () => {
    let proved = 0;
    fc.assert(
      fc.property(texts, fc.oneof(pieces, texts), (raw, wanted) => {
        const text = foldText(raw);
        for (const query of [foldText(wanted), text.slice(3, 6), text.slice(-2), text.slice(1, 2)]) {
          const demands = queryRuns(query);
          if (!demands.isWhole || !meets(splitRuns(text), demands)) continue;
          proved++;
          expect(text.includes(query)).toBe(true);
        }
      }),
      { numRuns: 1_500 },
    );
    expect(proved).toBeGreaterThan(250);
  });
});

describe('words', () => {
  it('come in order, with repetitions', () => {
    expect(wordsOf('the cat, the hat')).toEqual(['the', 'cat', 'the', 'hat']);
    expect(wordsOf('漢字仮 名')).toEqual(['漢字', '字仮', '名']);
    expect(wordsOf(`a ${'x'.repeat(65)} b`)).toEqual(['a', 'b']);
  });

  it('of Thai are those of the dictionary', () => {
    expect(wordsOf('ภาษาไทยง่าย')).toEqual(['ภาษา', 'ไทย', 'ง่าย']);
  });
});

describe('stems', () => {
  it('are those of Snowball', () => {
    const cases: Record<string, [string, string]> = {
      ar: ['الكتاب', 'كتاب'],
      da: ['husene', 'hus'],
      de: ['häuser', 'haus'],
      el: ['ανθρώπουσ', 'ανθρωπ'],
      en: ['skies', 'sky'],
      es: ['chicas', 'chic'],
      fi: ['taloissa', 'talo'],
      fr: ['continuellement', 'continuel'],
      hu: ['házakban', 'ház'],
      it: ['abbandonata', 'abbandon'],
      nl: ['lichamelijk', 'licham'],
      no: ['husene', 'hus'],
      pt: ['quilométricas', 'quilométr'],
      ro: ['abruptă', 'abrupt'],
      ru: ['книгами', 'книг'],
      sv: ['husens', 'hus'],
      tr: ['kitaplar', 'kitap'],
    };
    for (const language of stemLanguages) {
      const [word, stem] = cases[language]!;
      expect([language, ...stemsOf(foldText(word), [language])]).toEqual([language, stem]);
    }
  });

  it('are there once, and only for words of the script', () => {
    expect(stemsOf('houses', ['en', 'en'])).toEqual(['hous']);
    expect(stemsOf('книгами', ['en', 'de', 'ru'])).toEqual(['книг']);
    expect(stemsOf('4711', ['en'])).toEqual([]);
    expect(stemsOf('x'.repeat(60), ['en'])).toEqual([]);
  });

  it('stay the same when they are forgotten and made again', () => {
    for (let index = 0; index < 20_000; index++)
      stemsOf(`w${String.fromCharCode(97 + (index % 26))}${index.toString(36)}`, ['en']);
    expect(stemsOf('generously', ['en'])).toEqual(['generous']);
  });
});

describe('detectLanguage', () => {
  it('tells the language of sentences, and says nothing of the rest', async () => {
    expect(await detectLanguage('Vielen Dank für Ihre Nachricht, wir melden uns in den nächsten Tagen bei Ihnen.')).toBe('de');
    expect(await detectLanguage('Thank you for your message, we will come back to you within a few days.')).toBe('en');
    expect(await detectLanguage('Большое спасибо за ваше письмо, мы ответим вам в ближайшие дни.')).toBe('ru');
    expect(await detectLanguage('Takk for meldingen din, vi svarer deg i løpet av de neste dagene.')).toBe('no');
    expect(await detectLanguage('12345')).toBeUndefined();
    expect(await detectLanguage('ご連絡ありがとうございます。数日以内にご返信いたします。')).toBeUndefined();
  });
});
