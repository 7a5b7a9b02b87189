import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseSieve } from './grammar/index.js';
import { compileSieve, SieveError, SieveRunError } from './index.js';
import { allExtensions, plainMessage } from './test-runs.js';

/** One script for each corner of the language. */
const corpus = [
  `require ["fileinto", "copy", "mailbox", "imap4flags", "variables", "encoded-character"];
# comment
if header :contains ["subject", "x-flag"] ["lunch", "\${hex:79}es"] { fileinto :copy :create :flags ["\\\\Seen", "x"] "A/\${1}"; }
elsif anyof (size :over 10K, not exists "list-id", allof (true, false)) { keep; stop; } else { discard; }
set :upperfirst :lower "n" "A\${n}b"; addflag "\${n}"; redirect :copy "x@y.example";`,
  `require ["vacation", "vacation-seconds", "enotify", "fcc", "duplicate", "reject"];
vacation :seconds 60 :subject "s" :addresses ["a@b.example"] :handle "h" text:
Away.
..
.
;
notify :importance "1" :message "m" "mailto:a@b.example?subject=x%20y";
if duplicate :header "message-id" :seconds 5 :last { reject "no"; }`,
  `require ["foreverypart", "variables", "extracttext", "include", "ihave", "date", "relational"];
foreverypart :name "a" { extracttext :first 10 :length "t"; foreverypart { break :name "a"; } break; }
include :once :optional :global "x"; global ["g"]; set "g" "1"; set "global.h" "\${g}\${0}";
if ihave ["nothing", "of"] { nothing :of "that" { kind; } } elsif date :value "ge" "date" "hour" "1" { error "e"; } return;`,
  `if address :all :comparator "i;octet" :matches ["from", "to"] "*@?.example" { /* x */ keep; } /**/`,
];

const pieces = [
  '"',
  '\\',
  '${',
  '}',
  '{',
  '(',
  ')',
  '[',
  ']',
  ',',
  ';',
  ':',
  '/*',
  '*/',
  '#',
  '\n',
  '\r\n',
  'text:',
  '.',
  '0',
  'G',
  '\0',
  '\ufeff',
];
const edit = fc.record({
  at: fc.nat(2000),
  length: fc.oneof(fc.constant(0), fc.nat(3), fc.nat(60)),
  text: fc.oneof(fc.constantFrom(...pieces), fc.string({ maxLength: 5 }), fc.constant('')),
});
const mutated = fc.tuple(fc.constantFrom(...corpus), fc.array(edit, { maxLength: 4 })).map(([script, edits]) =>
  edits.reduce((text, { at, length, text: put }) => {
    const start = at % (text.length + 1);
    return text.slice(0, start) + put + text.slice(start + length);
  }, script),
);

/** Errors of the kinds that are promised are fine, others are not. */
async function tryOut(script: Buffer | string): Promise<void> {
  try {
    const compiled = compileSieve(script, { extensions: allExtensions });
    const host = { include: () => corpus[0], wasSeen: () => true };
    const outcome = await compiled.run({
      envelope: { from: '', to: ['b@b.example'] },
      message: plainMessage,
      environment: {},
      nowMs: 0,
      host,
    });
    expect(outcome.steps).toBeLessThanOrEqual(100_000);
  } catch (error) {
    if (!(error instanceof SieveRunError) && !(error instanceof SieveError)) throw error;
    if (error instanceof SieveRunError && error.cause !== undefined && !(error.cause instanceof SieveError)) throw error.cause;
  }
}

describe('hostile scripts', () => {
  it.each(corpus)('the corpus itself can be taken: %#', (script) => {
    expect(compileSieve(script, { extensions: allExtensions }).required).toBeDefined();
  });

  it('fails as promised, whatever the script', async () => {
    await fc.assert(fc.asyncProperty(mutated, tryOut), { numRuns: 3000 });
  });

  it('takes or refuses all bytes', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
        tryOut,
      ),
      { numRuns: 500 },
    );
  });

  // Each a megabyte: what were quadratic in one of them would not end.
  const megabyte = 1_000_000;
  const fill = (text: string) => text.repeat(Math.floor(megabyte / text.length));
  it.each([
    ['comments', fill('/**/#\n')],
    ['an open comment', `/*${fill('/*')}`],
    ['stars', `/*${fill('*')}`],
    ['escapes', `keep "${fill('\\"')}`],
    ['lines', `keep "${fill('\n')}";`],
    ['dots', `keep text:\n${fill('..\n')}`],
    ['an open multi-line text', `keep text:\n${fill('x')}`],
    ['a number', `keep ${fill('0')};`],
    ['a name', fill('a')],
    ['tags', `keep ${fill(':a ')};`],
    ['texts', `keep ${fill('"" ')};`],
    ['a list', `keep [${fill('"",')}];`],
    ['openings', fill('{')],
    ['commands', fill('a;')],
  ])('%s', (_name, script) => {
    const limits = {
      maxScriptBytes: 2 * megabyte,
      maxTextBytes: megabyte,
      maxListItems: megabyte,
      maxCommands: megabyte,
      maxNesting: 32,
    };
    try {
      parseSieve(script, limits);
    } catch (error) {
      expect(error).toBeInstanceOf(SieveError);
    }
  });

  it.each([
    ['openings of encoded characters', fill('${hex:')],
    ['blanks in encoded characters', `\${hex:4${fill(' ')}`],
    ['digits in encoded characters', `\${unicode:${fill('0')}`],
    ['digits and blanks', `\${hex:${fill('40 ')}`],
    ['openings of variables', fill('${a')],
    ['a long name', `\${${fill('a')}`],
    ['many names', `\${${fill('a.')}`],
    ['variables', fill(`$${'{a}'}`)],
  ])('texts with %s', async (_name, text) => {
    const limits = { maxTextBytes: 2 * megabyte, maxScriptBytes: 2 * megabyte };
    const script = `require ["variables", "encoded-character"]; set "a" "${text}";`;
    const outcome = compileSieve(script, { extensions: allExtensions, limits }).run({
      envelope: { to: [] },
      environment: {},
      nowMs: 0,
    });
    expect((await outcome).keepsImplicitly).toBe(true);
  });
});
