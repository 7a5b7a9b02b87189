import { describe, expect, it } from 'vitest';
import { compileSieve, sieveExtensions } from './index.js';
import { allExtensions, compileFailure, runScript } from './test-runs.js';

describe('what a script is refused for', () => {
  it.each([
    ['fileinto "a";', `1:1 'fileinto' needs 'require "fileinto";' at the script's start`],
    ['keep; require "fileinto";', "1:7 'require' must stand at the script's start, before all other commands"],
    ['if true { require "fileinto"; }', "1:11 'require' must stand at the script's start, before all other commands"],
    ['require "nothing";', "1:9 there is no extension 'nothing' here"],
    ['require ["fileinto",\n "nothing"];', "2:2 there is no extension 'nothing' here"],
    ['keeep;', "1:1 there is no command 'keeep'"],
    ['if heder "a" "b" {}', "1:4 there is no test 'heder'"],
    ['true;', "1:1 'true' is no command, it can't stand here"],
    ['if keep {}', "1:4 'keep' is no test, it can't stand here"],
    ['if if {}', "1:4 'if' is no test, it can't stand here"],
    ['keep; else {}', "1:7 'else' must stand behind the block of an 'if' or 'elsif'"],
    ['if true {} else {} elsif true {}', "1:20 'elsif' must stand behind the block of an 'if' or 'elsif'"],
    ['if {}', "1:1 behind 'if' a test is missing"],
    ['if true;', "1:1 behind 'if' a block in braces is missing"],
    ['keep {}', "1:1 'keep' has no block, it ends with ';'"],
    ['if true "x" {}', "1:9 'true' has too many arguments: at most 0"],
    ['keep true;', "1:6 'keep' takes no test"],
    ['if not (true) {}', "1:9 'not' takes one test, not a list in parentheses"],
    ['if allof true {}', "1:10 behind 'allof' tests in parentheses are missing"],
    ['keep :flags "x";', `1:6 ':flags' needs 'require "imap4flags";' at the script's start`],
    ['keep :nothing;', "1:6 'keep' has no argument ':nothing'"],
    ['keep :__proto__;', "1:6 'keep' has no argument ':__proto__'"],
    ['require "copy"; redirect :copy :copy "a@b.example";', "1:32 ':copy' stands here twice"],
    ['require "vacation-seconds"; vacation :days 1 :seconds 2 "x";', "1:46 ':days' and ':seconds' exclude one another"],
    ['require "vacation"; vacation :days "1" "x";', "1:36 ':days' must be a number"],
    ['require "vacation"; vacation "x" :days;', "1:34 ':days' must stand before the other arguments"],
    ['require "vacation"; vacation :days;', "1:30 ':days' needs a number behind it"],
    ['redirect;', "1:1 'redirect' lacks an argument: address (a text)"],
    ['redirect ["a@b.example"];', "1:10 address of 'redirect' must be a text"],
    ['redirect "nobody";', "1:10 'nobody' is no address of a mailbox"],
    [`require "variables"; set "a" "\${b.c}";`, "1:30 no extension that this script requires has variables 'b.…'"],
    [`require "variables"; set "\${a}" "b";`, '1:26 the name of a variable must be a constant'],
    ['require "variables"; set "0" "b";', "1:26 '0' is no name of a variable"],
    ['require ["variables", "include"]; global "global.a";', "1:42 the name of a global variable has no '.'"],
    ['require "foreverypart"; break;', "1:25 'break' must stand in the block of a 'foreverypart'"],
    ['require "foreverypart"; foreverypart :name "a" { break :name "b"; }', "1:62 there is no loop 'b' around this"],
  ])('%s', (script, expected) => {
    expect(compileFailure(script)).toBe(expected);
  });

  it('is also what is not allowed here', () => {
    const extensions = new Set(['fileinto', 'nothing that is known']);
    expect(compileFailure('require "copy";', { extensions })).toBe("1:9 there is no extension 'copy' here");
    expect(compileFailure('require "nothing that is known";', { extensions })).toMatch(/^1:9 there is no extension/);
    expect(compileFailure('set "a" "b";', { extensions })).toBe(
      "1:1 'set' is of the extension 'variables', which can't be used here",
    );
    const withheld = new Map([['redirect', 'the message is not here yet']]);
    expect(compileFailure('keep; redirect "a@b.example";', { withheld })).toBe(
      "1:7 'redirect' can't be used here: the message is not here yet",
    );
  });
});

describe('what is known', () => {
  it('names the extensions', () => {
    expect(sieveExtensions()).toEqual([...sieveExtensions()].sort());
    for (const name of ['copy', 'fileinto', 'variables', 'vacation-seconds', 'relational', 'editheader', 'comparator-i;octet']) {
      expect(sieveExtensions()).toContain(name);
    }
    expect(sieveExtensions()).not.toContain('');
  });

  it('tells what a script requires', () => {
    const script = compileSieve('require ["copy", "fileinto"]; require ["copy"];', { extensions: allExtensions });
    expect(script.required).toEqual(['copy', 'fileinto']);
  });
});

describe('ihave', () => {
  it('lets the rest of the script use what is there, and leaves the rest unread', async () => {
    const script = `require "ihave";
      if ihave ["fileinto", "variables"] { set "a" "b"; fileinto "\${a}"; }
      elsif unknown "x" { }
      else { unknown; }
      if ihave "unknown" { unknown :tag { a "b"; } } elsif ihave "imap4flags" { addflag "x"; }
      if allof (not ihave "unknown", header :contains "subject" "lunch") { addflag "y"; }
      if not anyof (ihave "fileinto", unknown) { unknown; }`;
    const outcome = await runScript(script);
    expect(outcome.actions).toEqual([{ kind: 'fileinto', mailbox: 'b', isCopy: false, creates: false }]);
    expect(outcome.flags).toEqual(['x', 'y']);
  });

  it('expands variables only behind it', async () => {
    const outcome = await runScript(
      `require ["ihave", "fileinto"]; fileinto "\${a}"; if ihave "variables" { set "a" "b"; } fileinto "c\${a}";`,
    );
    expect(outcome.actions).toMatchObject([{ mailbox: `\${a}` }, { mailbox: 'cb' }]);
  });

  it.each([
    ['require "ihave"; if ihave "fileinto" { unknown; }', "1:40 there is no command 'unknown'"],
    ['require "ihave"; if not ihave "unknown" { unknown; }', "1:43 there is no command 'unknown'"],
    ['require "ihave"; if ihave "unknown" {} fileinto "a";', `1:40 'fileinto' needs 'require "fileinto";' at the script's start`],
    [`require ["ihave", "variables"]; if ihave "\${a}" {}`, "1:42 what 'ihave' asks for must be a constant"],
    ['if false { unknown; }', "1:12 there is no command 'unknown'"],
    ['require "ihave"; if ihave "unknown" { unknown; ', "1:37 this block has no end: '}' is missing"],
  ])('%s', (script, expected) => {
    expect(compileFailure(script)).toBe(expected);
  });
});

describe('nesting', () => {
  it('goes as deep as any limit lets it', async () => {
    const limits = { maxNesting: 1e9 };
    const blocks = `${'if true { '.repeat(190)} discard; ${'}'.repeat(190)}`;
    expect((await runScript(blocks, { compile: { limits } })).actions).toEqual([{ kind: 'discard' }]);
    const tests = `if ${'not '.repeat(190)} header "subject" "Lunch at noon" { discard; }`;
    expect((await runScript(tests, { compile: { limits } })).actions).toEqual([{ kind: 'discard' }]);
  });
});

describe('encoded characters', () => {
  it.each([
    ['$hex:40}', '@'],
    ['$HEX: 41 42\t43 }', 'ABC'],
    ['$hex:c3}$hex:a9}$unicode:00e9 1F600}', 'éé😀'],
    ['$hex:}$hex:414}$hex:41,42}$unicode:}$hex', '$hex:}$hex:414}$hex:41,42}$unicode:}$hex'],
    ['$hex:24}{a}', 'v'],
  ])('%s', async (written, expected) => {
    const opened = (text: string) => text.replaceAll('$', `\${`);
    const script = `require ["fileinto", "encoded-character", "variables"]; set "a" "v"; fileinto "${opened(written)}";`;
    expect((await runScript(script)).actions).toMatchObject([{ mailbox: opened(expected) }]);
  });

  it('must be characters', () => {
    expect(compileFailure('require "encoded-character"; redirect "$' + '{unicode:d800}";')).toBe(
      "1:39 '$" + "{unicode:…}' of d800: there is no such character",
    );
  });
});
