import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Argument, type Command, SieveError } from '../contract.js';
import { defaultSieveLimits } from '../limits.js';
import { parseSieve } from './index.js';

function failure(script: Buffer | string, limits = defaultSieveLimits): string {
  try {
    parseSieve(script, limits);
  } catch (error) {
    if (!(error instanceof SieveError)) throw error;
    return `${error.at.line}:${error.at.column} ${error.message}`;
  }
  throw new Error('it was taken');
}

const textOf = (script: string) => {
  const argument = parseSieve(script)[0]!.arguments[0]!;
  if (argument.kind !== 'string') throw new Error(argument.kind);
  return argument.text.value;
};

describe('trees', () => {
  it('has arguments, tests and blocks with their places', () => {
    const at = (line: number, column: number) => ({ line, column });
    expect(parseSieve('# x\r\nIF /* \n */ Not header :IS ["a", "b"] 2K {\n\tstop;}')).toEqual([
      {
        name: 'if',
        arguments: [],
        tests: [
          {
            name: 'not',
            arguments: [],
            tests: [
              {
                name: 'header',
                arguments: [
                  { kind: 'tag', name: 'is', at: at(3, 16) },
                  {
                    kind: 'strings',
                    texts: [
                      { value: 'a', at: at(3, 21) },
                      { value: 'b', at: at(3, 26) },
                    ],
                    at: at(3, 20),
                  },
                  { kind: 'number', value: 2048, at: at(3, 31) },
                ],
                tests: [],
                hasTestList: false,
                at: at(3, 9),
              },
            ],
            hasTestList: false,
            at: at(3, 5),
          },
        ],
        hasTestList: false,
        block: [{ name: 'stop', arguments: [], tests: [], hasTestList: false, at: at(4, 2) }],
        at: at(2, 1),
      },
    ]);
  });

  it('takes lists of tests, and what is empty', () => {
    expect(parseSieve('if anyof (true, false,true) {}')[0]!.tests[0]).toMatchObject({
      hasTestList: true,
      tests: [{ name: 'true' }, { name: 'false' }, { name: 'true' }],
    });
    expect(parseSieve('')).toEqual([]);
    expect(parseSieve(Buffer.from('\ufeff# nothing'))).toEqual([]);
  });

  it('unquotes texts, and gives all line ends as CRLF', () => {
    expect(textOf(String.raw`keep "a\"b\\c\d";`)).toBe('a"b\\cd');
    expect(textOf('keep "a\nb\r\nc";')).toBe('a\r\nb\r\nc');
    expect(textOf('keep "a\\\nb";')).toBe('a\r\nb');
    expect(textOf('keep "ü\ud83d\ude00";')).toBe('ü😀');
    expect(textOf('keep text: # why\r\nHallo\r\n..\n...x\r\n.\r\n;')).toBe('Hallo\r\n.\r\n..x\r\n');
    expect(textOf('keep TEXT:\n.\n;')).toBe('');
  });

  it('counts numbers with their units', () => {
    const numbers = parseSieve('keep 0 007 1k 3M 2G;')[0]!.arguments.map(
      (argument) => argument.kind === 'number' && argument.value,
    );
    expect(numbers).toEqual([0, 7, 1024, 3 * 1024 ** 2, 2 * 1024 ** 3]);
  });
});

describe('refusals', () => {
  it.each([
    ['keep', "1:5 expected ';' or a block behind 'keep', found the script's end"],
    ['keep;\n  "x"', '2:3 expected a command, found a text'],
    ['if true {\nkeep;', "1:9 this block has no end: '}' is missing"],
    ['if true {}}', "1:11 expected a command, found '}'"],
    ['keep "x', "1:6 this text has no end: '\"' is missing"],
    ['keep "x\\', "1:6 this text has no end: '\"' is missing"],
    ['keep text:\nabc\n', "1:6 this text has no end: a line with '.' alone is missing"],
    ['keep text: x\n.\n;', "1:12 behind 'text:' the line must end"],
    ['/* x\n', "1:1 this comment has no end: '*/' is missing"],
    ['keep [];', "1:7 expected a text, found ']'"],
    ['keep ["a",];', "1:11 expected a text, found ']'"],
    ['keep ["a" "b"];', "1:11 expected ',' or ']', found a text"],
    ['if anyof () {}', "1:11 expected a test, found ')'"],
    ['if anyof (true; true) {}', "1:15 expected ',' or ')', found ';'"],
    ['keep :;', "1:6 a name is missing behind ':'"],
    ['keep 1kb;', "1:8 a number ends with a digit, 'K', 'M' or 'G'"],
    ['keep 99999999999999999;', '1:6 this number is too large'],
    ['keep 9999999999999G;', '1:6 this number is too large'],
    ['keep \u00e4;', "1:6 the character U+00E4 can't stand here"],
    ['keep -1;', "1:6 '-' can't stand here"],
    ['keep\r;', "1:5 a CR without LF can't stand here"],
    ['keep "\r";', "1:7 a CR without LF can't stand here"],
    ['keep "a\0";', "1:8 a NUL can't stand in a text"],
    ['keep "\\\0";', "1:8 a NUL can't stand in a text"],
    ['keep text:\na\0b\n.\n;', "2:2 a NUL can't stand in a text"],
    [`${'a'.repeat(129)};`, '1:1 this name is too long: at most 128 characters'],
  ])('%j', (script, expected) => {
    expect(failure(script)).toBe(expected);
  });

  it('says where bytes are not UTF-8', () => {
    expect(failure(Buffer.from([0xff]))).toBe('1:1 this is not UTF-8');
    expect(failure(Buffer.concat([Buffer.from('keep;\n# äö'), Buffer.from([0xc3, 0x28]), Buffer.from('\nkeep')]))).toBe(
      '2:5 this is not UTF-8',
    );
    expect(failure(Buffer.from([0x23, 0xe2, 0x82]))).toBe('1:2 this is not UTF-8');
  });

  it('has limits', () => {
    const limits = { maxScriptBytes: 200, maxNesting: 3, maxCommands: 5, maxTextBytes: 8, maxListItems: 2 };
    const failing = (script: string) => failure(script, { ...defaultSieveLimits, ...limits });
    expect(failing('#'.repeat(201))).toBe('1:1 the script is too long: 201 bytes of at most 200');
    expect(failing(`${'#'.repeat(199)}ä`)).toMatch(/201 bytes/);
    expect(failing('if not not not not true {}')).toBe('1:16 blocks and tests stand in each other too deeply: at most 3 levels');
    expect(failing('a{a{a{a{a{}}}}}')).toMatch(/^1:9 blocks and tests stand in each other too deeply/);
    expect(failing('a;a;a;a;a;a;')).toBe('1:11 the script is too long: at most 5 commands and tests');
    expect(failing('keep "äöüäö";')).toBe('1:6 this text is too long: at most 8 bytes');
    expect(failing('keep ["a","b","c"];')).toBe('1:6 this list is too long: at most 2 texts');
    expect(parseSieve('keep "äöüä" ["a","b"];', { ...defaultSieveLimits, ...limits })).toHaveLength(1);
  });

  it('does not run out of stack, whatever the limits say', () => {
    const limits = { ...defaultSieveLimits, maxNesting: 1e9, maxCommands: 1e9 };
    expect(failure(`if ${'not '.repeat(200_000)}true {}`, limits)).toMatch(/at most 200 levels/);
    expect(failure('if true{'.repeat(100_000), limits)).toMatch(/at most 200 levels/);
    expect(failure(`if ${'anyof('.repeat(100_000)}`, limits)).toMatch(/at most 200 levels/);
  });
});

// ---- whatever tree there is, its text gives the same tree ----

const identifier = fc.stringMatching(/^[a-z_][a-z0-9_]{0,12}$/).filter((name) => name !== 'text');
const value = fc
  .string({ unit: 'grapheme', maxLength: 20 })
  .map((text) => text.replace(/\0|\r\n|\r|\n/g, '\r\n').replace(/\p{Cs}/gu, '?'));
const argument: fc.Arbitrary<Shape> = fc.oneof(
  value.map((text) => ({ kind: 'string' as const, text })),
  fc.array(value, { minLength: 1, maxLength: 3 }).map((texts) => ({ kind: 'strings' as const, texts })),
  fc.nat().map((number) => ({ kind: 'number' as const, value: number })),
  identifier.map((name) => ({ kind: 'tag' as const, name })),
);
type Shape =
  | { kind: 'string'; text: string }
  | { kind: 'strings'; texts: string[] }
  | { kind: 'number'; value: number }
  | { kind: 'tag'; name: string };
interface Tree {
  name: string;
  arguments: Shape[];
  tests: Tree[];
  hasTestList: boolean;
  block?: Tree[];
}

const trees = fc.letrec<{ test: Tree; command: Tree }>((tie) => {
  const tests = fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constant({ tests: [] as Tree[], hasTestList: false }),
    tie('test').map((test) => ({ tests: [test], hasTestList: false })),
    fc.array(tie('test'), { minLength: 1, maxLength: 3 }).map((list) => ({ tests: list, hasTestList: true })),
  );
  const head = fc.tuple(identifier, fc.array(argument, { maxLength: 3 }), tests);
  return {
    test: head.map(([name, given, found]) => ({ name, arguments: given, ...found })),
    command: fc
      .tuple(head, fc.option(fc.array(tie('command'), { maxLength: 3 }), { nil: undefined, depthSize: 'small' }))
      .map(([[name, given, found], block]) => ({ name, arguments: given, ...found, ...(block && { block }) })),
  };
});

const quote = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`;
const multiLine = (text: string) => `text:\r\n${text.replace(/^\./gm, '..')}\r\n.\r\n`;

function render(tree: Tree, blank: string): string {
  const given = tree.arguments.map((one) => {
    if (one.kind === 'string') return one.text.endsWith('\r\n') ? multiLine(one.text.slice(0, -2)) : quote(one.text);
    if (one.kind === 'strings') return `[${one.texts.map(quote).join(`,${blank}`)}]`;
    return one.kind === 'number' ? String(one.value) : `:${one.name}`;
  });
  const tests = tree.tests.map((test) => render(test, blank)).join(`${blank},`);
  return [tree.name, ...given, tree.hasTestList ? `(${tests})` : tests].join(blank);
}

const renderCommand = (tree: Tree, blank: string): string =>
  render(tree, blank) + (tree.block ? `{${tree.block.map((inner) => renderCommand(inner, blank)).join(blank)}}` : `${blank};`);

function withoutPlaces(command: Command): Tree {
  const { at: _, arguments: given, tests, block, ...rest } = command;
  const shape = (one: Argument): Shape => {
    if (one.kind === 'string') return { kind: 'string', text: one.text.value };
    if (one.kind === 'strings') return { kind: 'strings', texts: one.texts.map((text) => text.value) };
    return one.kind === 'number' ? { kind: 'number', value: one.value } : { kind: 'tag', name: one.name };
  };
  return {
    ...rest,
    arguments: given.map(shape),
    tests: tests.map(withoutPlaces),
    ...(block && { block: block.map(withoutPlaces) }),
  };
}

describe('round trip', () => {
  it('gives the tree back that was written down', () => {
    const blanks = fc.constantFrom(' ', '\r\n', '\n\t', ' # x "\n', '/* ; */', ' /** { **/ ');
    fc.assert(
      fc.property(fc.array(trees.command, { maxLength: 4 }), blanks, (script, blank) => {
        const text = script.map((tree) => renderCommand(tree, blank)).join(blank);
        expect(parseSieve(text, { ...defaultSieveLimits, maxNesting: 200 }).map(withoutPlaces)).toEqual(script);
      }),
    );
  });
});
