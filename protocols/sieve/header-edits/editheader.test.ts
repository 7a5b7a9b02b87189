import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeHeaderText } from '../../message/index.js';
import { compileError, messageOf, runScript } from '../tests/test-conditions.js';

const message = messageOf(`Received: from a by b
X-Tag: one
Subject: hello
X-Tag: two
Auto-Submitted: no
X-Tag: Three =?utf-8?q?=C3=A4?=

body
`);
const all = [
  'received: from a by b',
  'X-Tag: one',
  'Subject: hello',
  'X-Tag: two',
  'Auto-Submitted: no',
  'X-Tag: Three =?utf-8?q?=C3=A4?=',
];

/** The header behind a script, `name: value`. */
async function edited(commands: string, options: Parameters<typeof runScript>[1] = {}): Promise<string[] | undefined> {
  const script = `require ["editheader", "variables", "regex", "relational", "comparator-i;unicode-casemap", "extlists", "encoded-character"]; ${commands}`;
  const { editedFields } = await runScript(script, { message, ...options });
  return editedFields?.map((field) => {
    const { name, value } = 'added' in field ? field.added : message.fields[field.original]!;
    return `${name.toLowerCase() === 'received' ? 'received' : name}: ${value}`;
  });
}
const without = (...indexes: number[]) => all.filter((_, index) => !indexes.includes(index));

/** Of all planes, control characters often. */
const character = fc
  .oneof(fc.nat(0x7f), fc.nat(0xd7ff), fc.integer({ min: 0xe000, max: 0x10ffff }))
  .map((code) => String.fromCodePoint(code));

describe('addheader', () => {
  it('adds in front, with :last behind', async () => {
    expect(await edited('addheader "X-New" "a b";')).toEqual(['X-New: a b', ...all]);
    expect(await edited('addheader :last "X-New" "a b";')).toEqual([...all, 'X-New: a b']);
    expect(await edited('addheader "X-A" "1"; addheader "X-B" "2";')).toEqual(['X-B: 2', 'X-A: 1', ...all]);
    expect(await edited('addheader "Subject" "again";')).toEqual(['Subject: again', ...all]);
  });

  it.each([
    ['Grüße', '=?utf-8?b?R3LDvMOfZQ==?='],
    ['Zoë <zoe@example.org>', '=?utf-8?q?Zo=C3=AB?= <zoe@example.org>'],
    ['aus  Köln und  Düsseldorf ö', 'aus  =?utf-8?b?S8O2bG4=?= und  =?utf-8?b?RMO8c3NlbGRvcmYgw7Y=?='],
    ['  blanks around\t', 'blanks around'],
    ['=?utf-8?q?x?=', '=?utf-8?q?x?='],
    ['', ''],
  ])('writes %j as %s', async (value, raw) => {
    expect((await edited(`addheader "X-New" "${value}";`))?.[0]).toBe(`X-New: ${raw}`);
  });

  it('encodes what fits into no line', async () => {
    const [field] = (await edited(`addheader "X-New" "${'a'.repeat(2000)}";`))!;
    expect(
      field!
        .slice(7)
        .split(' ')
        .every((word) => word.length <= 75),
    ).toBe(true);
    expect(decodeHeaderText(field!.slice(7))).toBe('a'.repeat(2000));
  });

  it('takes line ends and control characters of a message for spaces', async () => {
    const hostile = messageOf('Subject: =?utf-8?q?a=0D=0AX-Evil:_1=00=07b?=\n\n');
    const script = `require ["editheader", "variables"]; if header :matches "subject" "*" { addheader "X-Copy" "\${1}"; }`;
    const { editedFields } = await runScript(script, { message: hostile });
    expect(editedFields?.[0]).toEqual({ added: { name: 'X-Copy', value: 'a  X-Evil: 1  b' } });
  });

  it('takes folded texts', async () => {
    expect((await edited('addheader "X-New" text:\none\n two\n.\n;'))?.[0]).toBe('X-New: one  two');
  });

  it('is read by the tests that follow, decoded', async () => {
    const { actions } = await runScript(
      'require "editheader"; addheader "X-New" "Grüße"; if header "x-new" "Grüße" { discard; }',
      { message },
    );
    expect(actions).toEqual([{ kind: 'discard' }]);
  });

  it('never gives a field with a line end, NUL or an octet beyond ASCII', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: character, maxLength: 60 }), async (text) => {
        const script = `require ["include", "editheader", "variables"]; addheader "X-New" "\${global.text}";`;
        const { editedFields } = await runScript(script, { message, variables: { text } });
        const first = editedFields![0]!;
        expect('added' in first && first.added.value).toMatch(/^[\t\x20-\x7e]*$/);
      }),
    );
  });

  it.each([
    ['addheader "X New" "v";', /name of a header field/],
    ['addheader "X-New:" "v";', /name of a header field/],
    ['addheader "Grüße" "v";', /name of a header field/],
    ['addheader "" "v";', /name of a header field/],
    [`addheader "${'x'.repeat(77)}" "v";`, /name of a header field/],
    ['addheader "X" "a\r\nX-Evil: 1";', /control/],
    ['addheader "X" "a\u0007";', /control/],
    [`addheader "X" "${'a'.repeat(8193)}";`, /8192/],
    ['addheader "X";', /lacks/],
  ])('%.30s is refused', (command, reason) => {
    expect(compileError(`require "editheader"; ${command}`)).toMatch(reason);
  });

  it('ends the run for a name that is none', async () => {
    await expect(edited(`set "n" "a b"; addheader "\${n}" "v";`)).rejects.toThrow(/name of a header field/);
  });

  it('has a limit', async () => {
    await expect(edited('addheader "X" "v";'.repeat(100))).rejects.toThrow(/at most/);
  });
});

describe('deleteheader', () => {
  it.each([
    ['deleteheader "x-tag";', without(1, 3, 5)],
    ['deleteheader :index 1 "x-tag";', without(1)],
    ['deleteheader :index 1 :last "x-tag";', without(5)],
    ['deleteheader :index 2 :last "x-tag";', without(3)],
    ['deleteheader :index 1 "x-tag"; deleteheader :index 2 "x-tag";', without(1, 5)],
    ['deleteheader "x-tag" "two";', without(3)],
    ['deleteheader "x-tag" ["one", "TWO"];', without(1, 3)],
    ['deleteheader :contains "x-tag" "ä";', without(5)],
    ['deleteheader :matches "x-tag" "t*";', without(3, 5)],
    ['deleteheader :matches :comparator "i;octet" "x-tag" "t*";', without(3)],
    ['deleteheader :regex "x-tag" "^(one|two)$";', without(1, 3)],
    ['deleteheader :value "gt" "x-tag" "p";', without(3, 5)],
    ['deleteheader :index 2 :contains "x-tag" "two";', without(3)],
    ['deleteheader "Subject";', without(2)],
    ['addheader "X-Hello" "World"; deleteheader :index 1 "X-Hello";', all],
  ])('%s', async (commands, expected) => {
    expect(await edited(commands)).toEqual(expected);
  });

  it.each([
    // The first occurrence is looked at, not the first that matches.
    'deleteheader :index 1 :contains "x-tag" "two";',
    'deleteheader :index 4 "x-tag";',
    'deleteheader :index 4 :last "x-tag";',
    'deleteheader :index 9 :last "x-tag" "one";',
    'deleteheader "x-none";',
    'deleteheader "x-tag" "on";',
    // RFC 5293 6: what is not permitted is silently ignored.
    'deleteheader "Received";',
    'deleteheader "AUTO-SUBMITTED";',
    'deleteheader :index 1 "received" "from a by b";',
  ])('%s changes nothing', async (commands) => {
    expect(await edited(commands)).toBeUndefined();
  });

  it('ignores how to compare where there are no patterns', async () => {
    expect(await edited('deleteheader :contains :comparator "i;octet" "x-tag";')).toEqual(without(1, 3, 5));
  });

  it('sets no match variables', async () => {
    expect((await edited(`deleteheader :matches "x-tag" "t*"; addheader "X" "<\${1}>";`))?.[0]).toBe('X: <>');
  });

  it('costs by the fields that there are', async () => {
    const many = messageOf(`${'X-Tag: 1\n'.repeat(1500)}\n`);
    const deleting = (times: number) =>
      runScript(`require "editheader"; ${'deleteheader :index 1 "x-tag";'.repeat(times)}`, { message: many });
    expect((await deleting(1)).steps).toBeGreaterThan(100);
    await expect(deleting(900)).rejects.toThrow(/steps/);
  });

  it('asks the host for lists', async () => {
    const host = { isInList: async (_list: string, values: readonly string[]) => values.includes('two') };
    expect(await edited('deleteheader :list "x-tag" "bad";', { host })).toEqual(without(3));
    expect(await edited('deleteheader :list :index 1 "x-tag" "bad";', { host })).toBeUndefined();
  });

  it.each([
    ['deleteheader :last "x-tag";', /':index'/],
    ['deleteheader :index 0 "x-tag";', /from 1/],
    ['deleteheader "x tag";', /name of a header field/],
    ['deleteheader :count "eq" "x-tag" "1";', /can't be used/],
    ['deleteheader :regex "x-tag" "(";', /regular expression/],
  ])('%s is refused', (command, reason) => {
    expect(compileError(`require ["editheader", "relational", "regex"]; ${command}`)).toMatch(reason);
  });

  it('leaves no field of its name behind, whatever the order', async () => {
    const edit = fc.oneof(
      fc.record({ kind: fc.constant('add'), name: fc.constantFrom('X-Tag', 'X-B'), last: fc.boolean(), index: fc.constant(1) }),
      fc.record({
        kind: fc.constant('delete'),
        name: fc.constantFrom('X-Tag', 'X-B'),
        last: fc.boolean(),
        index: fc.integer({ min: 1, max: 4 }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { maxLength: 8 }), async (edits) => {
        const model = [...all];
        const script = edits.map(({ kind, name, last, index }, i) => {
          if (kind === 'add') {
            if (last) model.push(`${name}: ${i}`);
            else model.unshift(`${name}: ${i}`);
            return `addheader ${last ? ':last' : ''} "${name}" "${i}";`;
          }
          const found = [...model.keys()].filter((at) => model[at]!.startsWith(`${name}:`));
          const at = last ? found[found.length - index] : found[index - 1];
          if (at !== undefined) model.splice(at, 1);
          return `deleteheader :index ${index} ${last ? ':last' : ''} "${name}";`;
        });
        expect((await edited(script.join('\n'))) ?? all).toEqual(model);
      }),
    );
  });
});
