/** Inputs made to be slow: the work is counted in steps, and grows with the input, not with its square. */
import { describe, expect, it } from 'vitest';
import { SieveRunError } from '../index.js';
import { messageOf, runScript } from './test-conditions.js';

const requires = `require ["regex", "relational", "comparator-i;unicode-casemap", "comparator-i;ascii-numeric", "variables", "envelope", "body",
  "mime", "date", "editheader", "include", "index", "subaddress"];`;
const unlimited = 1_000_000_000;

/** Steps of a condition that is asked of a message of one field. */
async function stepsOf(condition: string, field: string, variables: Record<string, string> = {}): Promise<number> {
  const message = messageOf(`${field}\n\n`);
  const { steps } = await runScript(`${requires} if ${condition} { discard; }`, { message, variables, maxSteps: unlimited });
  return steps;
}

describe('work is linear in the text', () => {
  it.each<[string, (n: number) => string, (n: number) => string]>([
    ['as many stars as characters', () => `header :matches "x-a" "\${stars}"`, (n) => `X-A: ${'*a'.repeat(n)}`],
    ['stars in the text', () => 'header :matches "x-a" "*a*a*a*b*"', (n) => `X-A: ${'a*'.repeat(n)}`],
    [
      'stars between pieces that nearly fit',
      () => `header :matches "x-a" "*${'a'.repeat(300)}b*${'a'.repeat(300)}b*"`,
      (n) => `X-A: ${'a'.repeat(n)}`,
    ],
    ['marks in a piece', () => `header :matches "x-a" "*${'a?'.repeat(200)}b*"`, (n) => `X-A: ${'a'.repeat(n)}`],
    [
      'marks, by code points',
      () => `header :matches :comparator "i;unicode-casemap" "x-a" "*${'ä?'.repeat(50)}b*"`,
      (n) => `X-A: ${'ä'.repeat(n)}`,
    ],
    [
      'combining marks',
      () => 'header :matches :comparator "i;unicode-casemap" "x-a" "*b*"',
      (n) => `X-A: ${'\u0301\u0323'.repeat(n / 4)}`,
    ],
    ['a part that nearly fits', () => `header :contains "x-a" "${'a'.repeat(1000)}b"`, (n) => `X-A: ${'a'.repeat(n)}`],
    ['a nested repetition', () => 'header :regex "x-a" "^((a+)+)+$"', (n) => `X-A: ${'a'.repeat(n)}b`],
    ['alternatives that overlap', () => 'header :regex "x-a" "^(a|a|aa)*c"', (n) => `X-A: ${'a'.repeat(n)}`],
    ['states without number', () => 'header :regex "x-a" "(.*)a.{100}b"', (n) => `X-A: ${'ab'.repeat(n / 8)}`],
    ['commas', () => 'address :contains "to" "x"', (n) => `To: ${','.repeat(n)}`],
    ['addresses', () => 'address :user :is "to" "x"', (n) => `To: ${'a+b@c, '.repeat(n / 4)}`],
    ['open comments', () => 'address :is "to" "x"', (n) => `To: ${'('.repeat(n)}`],
    ['open quotes and angles', () => 'address :is "to" "x"', (n) => `To: ${'<"'.repeat(n)}`],
    ['encoded words', () => 'header :contains "x-a" "x"', (n) => `X-A: ${'=?utf-8?q?a?= '.repeat(n / 8)}`],
    ['half encoded words', () => 'header :contains "x-a" "x"', (n) => `X-A: ${'=?utf-8?q?'.repeat(n / 8)}`],
    ['digits', () => 'header :value "lt" :comparator "i;ascii-numeric" "x-a" "1"', (n) => `X-A: ${'0'.repeat(n)}1`],
    ['fields', () => 'header :contains "x-a" "b"', (n) => 'X-A: a\n'.repeat(n / 10).trimEnd()],
    ['semicolons in a date', () => 'date "x-a" "year" "2026"', (n) => `X-A: ${';'.repeat(n)}`],
    ['parameters', () => 'header :mime :param "a" "content-type" "b"', (n) => `Content-Type: a/b${'; a=b'.repeat(n / 4)}`],
  ])('%s', async (_name, condition, field) => {
    const variables = { stars: '*'.repeat(10_000) };
    const steps = async (n: number) => await stepsOf(condition(n).replace(`\${stars}`, `\${global.stars}`), field(n), variables);
    const once = await steps(8_000);
    const twice = await steps(16_000);
    // What does not depend on the size is in both.
    expect(twice).toBeLessThan(once * 2.2 + 100);
    expect(await steps(40_000)).toBeLessThan(once * 6 + 100);
  });
});

describe('the budget', () => {
  const message = messageOf(`X-A: ${'a'.repeat(100_000)}\n\n${'a '.repeat(500_000)}`);
  const fails = async (conditions: string) => {
    await expect(runScript(`${requires} ${conditions}`, { message })).rejects.toThrow(SieveRunError);
  };

  it('ends what is repeated over a long text', async () => {
    await fails('if header :matches "x-a" "*b*" { stop; }'.repeat(200));
    await fails('if header :regex "x-a" "(a|b)*c" { stop; }'.repeat(100));
    await fails(`if header :contains "x-a" [${Array.from({ length: 500 }, (_, i) => `"b${i}"`).join(',')}] { stop; }`);
    await fails(`if header :regex "x-a" "(a{250}){4}(.*)" { stop; }`.repeat(10));
    await fails('if body :raw :contains "b" { stop; }'.repeat(20));
    await fails('if address :contains "x-a" "b" { stop; }'.repeat(20));
  });

  it('ends many keys that a script makes', async () => {
    const script = `${requires} ${Array.from({ length: 900 }, (_, i) => `set "v" "(a|b){100}${i}"; if header :regex "x-b" "\${v}" { stop; }`).join('\n')}`;
    await expect(runScript(script, { message: messageOf(`X-B: ${'b'.repeat(2000)}\n\n`) })).rejects.toThrow(/steps/);
  });

  it('lets ordinary work over large messages be done', async () => {
    const script = `${requires} if anyof (header :matches "x-a" "*b*", header :contains "x-a" "needle", body :contains "needle", body :raw :contains "b") { discard; }`;
    expect((await runScript(script, { message })).actions).toEqual([]);
  });

  it('takes a hundred kilobytes with ten thousand stars, and commas without number', async () => {
    const stars = messageOf(`X-A: ${'a*aaaaaaaa'.repeat(10_000)}\nTo: ${','.repeat(100_000)}\n\n`);
    const script = `${requires} if anyof (header :matches "x-a" "${'*a\\\\*'.repeat(10_000)}b", address :contains "to" "x") { discard; }`;
    expect((await runScript(script, { message: stars })).actions).toEqual([]);
  });
});

it('looks at four megabytes of a body at most', async () => {
  const body = Buffer.alloc(6_000_000, 0x61);
  body.write('early', 3_000_000);
  body.write('late', 5_000_000);
  const message = messageOf(Buffer.concat([Buffer.from('Subject: x\r\n\r\n'), body]));
  const asks = async (word: string) =>
    (await runScript(`require "body"; if body :raw :contains "${word}" { discard; }`, { message, maxSteps: unlimited })).actions
      .length > 0;
  expect(await asks('early')).toBe(true);
  expect(await asks('late')).toBe(false);
});
