import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { foldText, queryRuns, splitRuns } from '../../store/search/analysis/index.js';
import {
  addressText,
  bodyText,
  headerText,
  type MessageSummary,
  type SearchTexts,
  searchTexts,
  searchTextsOfSummary,
  subjectText,
  summarize,
  textEnd,
} from './index.js';

const maxBodyChars = 1_000_000;

function message(...lines: string[]): { bytes: Buffer; summary: MessageSummary } {
  const bytes = Buffer.from(lines.join('\r\n'));
  return { bytes, summary: summarize(bytes) };
}

const nested = message(
  'From: =?utf-8?q?J=C3=BCrgen?= <juergen@example.test>',
  'To: bob@example.test, "Eve, the other" <eve@example.test>',
  'Subject: =?utf-8?b?R3LDvMOfZQ==?= from',
  ' afar',
  'X-Note: a header',
  'MIME-Version: 1.0',
  'Content-Type: multipart/mixed; boundary=b',
  '',
  'preamble, which nobody reads',
  '--b',
  'Content-Type: text/html; charset=utf-8',
  'Content-Transfer-Encoding: quoted-printable',
  '',
  '<p title=3D"hint">split<b>word</b> &amp; caf=C3=A9</p>',
  '--b',
  'Content-Type: message/rfc822',
  '',
  'Subject: inner subject',
  'Content-Type: text/plain',
  '',
  'inner text',
  '--b',
  'Content-Type: image/png; name="picture.png"',
  'Content-Transfer-Encoding: base64',
  '',
  Buffer.alloc(3_000, 7).toString('base64'),
  '--b--',
  '',
);

const textsOf = ({ texts }: SearchTexts, field: string) => texts.filter((one) => one.field === field).map(({ text }) => text);

describe('texts for search', () => {
  it('are those that SEARCH looks at', async () => {
    const { bytes, summary } = nested;
    const found = await searchTexts(bytes, summary, { maxBodyChars });
    expect(found.partial).toEqual([]);
    expect(textsOf(found, 'from')).toEqual(['Jürgen <juergen@example.test>\n']);
    expect(textsOf(found, 'to')).toEqual([addressText(summary.envelope.to)]);
    expect(textsOf(found, 'subject')).toEqual(['Grüße from afar']);
    expect(subjectText(summary.envelope.subject)).toBe('Grüße from afar');
    expect(textsOf(found, 'header')).toEqual([headerText(bytes, summary.structure)]);
    const body = textsOf(found, 'body').join('\n');
    for (const text of ['splitword & café', 'title="hint"', 'inner text', 'inner subject', 'picture.png']) {
      expect(bodyText(bytes, summary.structure)).toContain(text);
      expect(body).toContain(text);
    }
    expect(body).not.toContain('preamble');
  });

  it('come from the bytes up to the last text alone', async () => {
    const { bytes, summary } = nested;
    const end = textEnd(summary.structure, maxBodyChars);
    expect(end).toBeLessThan(bytes.length - 3_000);
    const whole = await searchTexts(bytes, summary, { maxBodyChars });
    expect(await searchTexts(bytes.subarray(0, end), summary, { maxBodyChars })).toEqual(whole);
  });

  it('stop at the limit and say so', async () => {
    for (const encoding of ['8bit', 'base64', 'quoted-printable']) {
      const text = 'words '.repeat(5_000);
      const encoded = encoding === 'base64' ? Buffer.from(text).toString('base64') : text;
      const { bytes, summary } = message('Subject: x', `Content-Transfer-Encoding: ${encoding}`, '', encoded);
      const cut = await searchTexts(bytes, summary, { maxBodyChars: 1_000 });
      expect(cut.partial).toEqual(['body']);
      expect(textsOf(cut, 'body').join('').length).toBeLessThanOrEqual(1_000);
      expect((await searchTexts(bytes, summary, { maxBodyChars: 100_000 })).partial).toEqual([]);
      expect(textEnd(summary.structure, 10)).toBeLessThan(bytes.length / 2);
    }
    // The markup alone fills the room: the words without it are missing.
    const markup = 'wo<b>rd</b>';
    const html = message('Content-Type: text/html', '', markup);
    expect(textsOf(await searchTexts(html.bytes, html.summary, { maxBodyChars }), 'body')).toContain('word');
    expect((await searchTexts(html.bytes, html.summary, { maxBodyChars: markup.length })).partial).toEqual(['body']);
    expect(searchTextsOfSummary(nested.summary).map(({ field }) => field)).toEqual(['from', 'to', 'subject']);
  });

  it('let others have their turn', async () => {
    let turns = 0;
    const pause = async () => void turns++;
    await searchTexts(nested.bytes, nested.summary, { maxBodyChars, pause });
    expect(turns).toBeGreaterThan(1);
  });

  it('have the runs of whatever SEARCH finds', async () => {
    const words = fc.constantFrom(
      'alpha',
      'Beta',
      'straße',
      '漢字',
      '😀',
      '<b>',
      '=',
      '&amp;',
      '--b',
      '\r\n',
      '\r\n\r\n',
      ' ',
      ': ',
      '=C3',
    );
    const parts = fc.array(words, { maxLength: 20 }).map((some) => some.join(''));
    const kinds = fc.constantFrom(
      'text/plain',
      'text/html',
      'message/rfc822',
      'multipart/alternative; boundary=b',
      'image/png; name="a.b"',
    );
    const encodings = fc.constantFrom('8bit', 'base64', 'quoted-printable');
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(kinds, encodings, parts), { maxLength: 4 }),
        parts,
        fc.nat(),
        async (list, subject, at) => {
          const lines = list.flatMap(([kind, encoding, text]) => [
            '--x',
            `Content-Type: ${kind}`,
            `Content-Transfer-Encoding: ${encoding}`,
            '',
            encoding === 'base64' ? Buffer.from(text).toString('base64') : text,
          ]);
          const { bytes, summary } = message(
            `Subject: ${subject.replaceAll('\r\n', ' ')}`,
            'Content-Type: multipart/mixed; boundary=x',
            '',
            ...lines,
            '--x--',
          );
          const { texts } = await searchTexts(bytes, summary, { maxBodyChars });
          const whole: Record<string, string> = {
            body: bodyText(bytes, summary.structure),
            header: headerText(bytes, summary.structure),
            subject: subjectText(summary.envelope.subject),
          };
          for (const [field, text] of Object.entries(whole)) {
            const runs = new Set<string>();
            for (const one of texts) if (one.field === field) splitRuns(foldText(one.text), runs);
            const folded = foldText(text);
            const from = folded.length === 0 ? 0 : at % folded.length;
            const { exact, suffix, prefix, contains } = queryRuns(folded.slice(from, from + 12));
            expect(exact.every((run) => runs.has(run))).toBe(true);
            for (const [part, test] of [
              [suffix, (run: string) => run.endsWith(suffix!)],
              [prefix, (run: string) => run.startsWith(prefix!)],
              [contains, (run: string) => run.includes(contains!)],
            ] as const) {
              expect(part === undefined || [...runs].some(test)).toBe(true);
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
