/** Every test over every hostile message of `protocols/message/corpus`, whole and damaged: no run fails, and each gives the same again. */
import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileSieve } from '../index.js';
import { allExtensions, messageOf, requireAll } from './test-conditions.js';

const corpus = new URL('../../message/corpus/', import.meta.url);
const messages = readdirSync(corpus)
  .filter((name) => name.endsWith('.eml'))
  .map((name) => ({ name, bytes: readFileSync(new URL(name, corpus)) }));

const conditions = [
  'header :contains ["subject", "from", "x-none", "content-type", "received"] ["a", "é"]',
  'header :matches ["subject", "to"] "*?a*"',
  'header :matches :comparator "i;unicode-casemap" ["subject", "from"] "*?ä*"',
  'header :regex ["subject", "to"] "^(.*)[[:alpha:]]+(.*)$"',
  'header :value "gt" :comparator "i;ascii-numeric" ["x-priority", "date"] "2"',
  'header :count "ge" ["received", "subject"] "2"',
  'header :index 2 :last :contains ["received", "to"] ""',
  'header :mime :anychild :contenttype :matches "content-type" "*/?*"',
  'header :mime :anychild :param ["name", "filename", "charset"] :matches ["content-type", "content-disposition"] "*.*"',
  'address :matches ["from", "to", "cc", "reply-to", "return-path"] "*@*"',
  'address :detail :contains ["from", "to"] ""',
  'address :mime :anychild :domain :contains ["from", "to"] "e"',
  'exists :mime :anychild ["content-type", "from"]',
  'date :originalzone :matches "date" "std11" "*"',
  'date :index 1 :last :matches "received" "iso8601" "*"',
  'body :contains "a"',
  'body :raw :matches "*a?*"',
  'body :content "" :contains :comparator "i;unicode-casemap" "Ä"',
  'body :content ["multipart", "message/rfc822", "text"] :regex "a+$"',
  'size :over 100',
];
const script = compileSieve(
  `${requireAll}
   ${conditions.map((condition, i) => `if ${condition} { set :length "n" "\${0}|\${1}|\${2}"; fileinto "${i}: \${n}"; }`).join('\n')}
   if header :matches "subject" "*" { set "s" "\${1}"; }
   set :length "n" "\${s}";
   if not string :value "gt" :comparator "i;ascii-numeric" "\${n}" "2000" { addheader "X-Subject" "\${s}"; }
   deleteheader :matches "from" "*a*";
   foreverypart { if header :mime :matches "content-type" "*" { addheader "X-Part" "part"; break; } }`,
  { extensions: allExtensions, limits: { maxSteps: 10_000_000, maxActions: 100 } },
);

async function decide(bytes: Buffer) {
  const input = { envelope: { from: 'a@b', to: ['c@d'] }, message: messageOf(bytes), environment: {}, nowMs: 0 };
  const { actions, editedFields } = await script.run(input);
  return { actions, editedFields };
}

describe('every test', () => {
  it.each(messages)('takes $name', async ({ bytes }) => {
    expect(await decide(bytes)).toEqual(await decide(Buffer.from(bytes)));
  });

  it('takes damaged messages', async () => {
    const damage = fc.record({
      at: fc.nat(3000),
      length: fc.nat(40),
      put: fc.oneof(
        fc.uint8Array({ maxLength: 8 }),
        fc.constantFrom('\r\n\r\n', '=?', '?=', '<', '(', '"', '\0').map((text) => Buffer.from(text)),
      ),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...messages),
        fc.array(damage, { minLength: 1, maxLength: 6 }),
        async ({ bytes }, damages) => {
          let damaged = bytes;
          for (const { at, length, put } of damages) {
            const start = damaged.length === 0 ? 0 : at % damaged.length;
            damaged = Buffer.concat([damaged.subarray(0, start), put, damaged.subarray(start + length)]);
          }
          await decide(damaged);
        },
      ),
      { numRuns: 300 },
    );
  });
});
