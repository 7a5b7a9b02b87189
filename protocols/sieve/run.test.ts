import { describe, expect, it } from 'vitest';
import { type SieveHost, SieveRunError } from './index.js';
import { runFailure, runScript } from './test-runs.js';

const variables = async (script: string, options: Parameters<typeof runScript>[1] = {}) =>
  (await runScript(`require ["variables", "include"]; ${script}`, options)).variables;

describe('a run', () => {
  it('keeps what nothing is done with', async () => {
    expect(await runScript('')).toEqual({
      actions: [],
      keepsImplicitly: true,
      flags: [],
      seenIds: [],
      variables: {},
      steps: 0,
    });
  });

  it('counts commands and tests, and ends when there are too many', async () => {
    const script = 'if anyof (header "a" "b", exists "subject") { keep; } stop; keep;';
    const { steps } = await runScript(script);
    expect(steps).toBeGreaterThanOrEqual(6);
    const limits = { maxSteps: steps };
    expect((await runScript(script, { compile: { limits } })).steps).toBe(steps);
    expect(await runFailure(script, { compile: { limits: { maxSteps: 3 } } })).toBe('1:1 the script has taken too many steps');
  });

  it('has limits of actions', async () => {
    const redirects = '1 2 3'.split(' ').map((name) => `redirect "${name}@b.example";`);
    expect(await runFailure(redirects.join('\n'), { compile: { limits: { maxRedirects: 2 } } })).toBe(
      '3:1 the message would be redirected too often: at most 2 times',
    );
    expect(await runFailure(redirects.join('\n'), { compile: { limits: { maxActions: 1 } } })).toBe(
      '2:1 there are too many actions: at most 1',
    );
  });

  it('ends when it is told to, before it starts and while it waits', async () => {
    expect(await runFailure('', { signal: AbortSignal.abort() })).toMatch(/ended from outside/);
    const ending = new AbortController();
    const host: SieveHost = {
      wasSeen: () => {
        ending.abort();
        return new Promise(() => {});
      },
    };
    expect(await runFailure('require "duplicate"; if duplicate {}', { host, signal: ending.signal })).toMatch(
      /ended from outside/,
    );
  });

  it('turns whatever goes wrong into its own error, with a place', async () => {
    const broken = (error: unknown): SieveHost => ({
      wasSeen: () => Promise.reject(error),
      isListName: () => {
        throw error;
      },
    });
    const host = broken(new TypeError('oops'));
    expect(await runFailure('require "duplicate"; if duplicate {}', { host })).toBe('1:22 the run has failed: oops');
    expect(await runFailure('require "extlists";\nif true { if valid_ext_list "a" {} }', { host })).toBe(
      '2:11 the run has failed: oops',
    );
    const cause = new SieveRunError('mine', { line: 7, column: 8 });
    expect(await runFailure('require "duplicate"; if duplicate {}', { host: broken(cause) })).toBe('7:8 mine');
    expect(await runFailure('require "ihave";\n error "so it is";')).toBe('2:2 so it is');
  });

  it('goes on behind what it has waited for', async () => {
    const host: SieveHost = { wasSeen: async (id) => id.length === 0, isListName: async (name) => name === 'a' };
    const script = `require ["duplicate", "extlists", "imap4flags"];
      if not valid_ext_list ["a", "b"] { addflag "1"; }
      if anyof (valid_ext_list "b", valid_ext_list "a") { addflag "2"; if duplicate { addflag "3"; } elsif valid_ext_list "a" { addflag "4"; } }
      if allof (valid_ext_list "a", not valid_ext_list "b", true) { addflag "5"; stop; }
      addflag "6";`;
    expect((await runScript(script, { host })).flags).toEqual(['1', '2', '4', '5']);
  });
});

describe('variables', () => {
  it('are set, modified and put into texts', async () => {
    expect(
      await variables(`global ["a", "b", "c", "d", "e", "f"];
        set "A" "x\${nothing}y"; set :upper "b" "\${a}\${A}"; set :lowerfirst :upper "c" "ärger"; set :length "d" "a😀";
        set :quotewildcard "e" "a*?\\\\"; set "f" "\${\${}\${a";`),
    ).toEqual({ a: 'xy', b: 'XYXY', c: 'äRGER', d: '2', e: 'a\\*\\?\\\\', f: `\${\${}\${a` });
  });

  it('have limits', async () => {
    const limits = { maxVariables: 2, maxVariableBytes: 5, maxTextBytes: 100 };
    expect(await variables('global "a"; set "a" "aääää";', { compile: { limits } })).toEqual({ a: 'aää' });
    expect(await variables(`global "a"; set "a" "ääää"; set "a" "\${a}x";`, { compile: { limits } })).toEqual({ a: 'ääx' });
    expect(
      await runFailure('require "variables"; set "a" ""; set "b" ""; set "a" "2";\nset "c" "";', { compile: { limits } }),
    ).toBe('2:1 there are too many variables: at most 2');
    const long = `require "variables"; set "a" "12345"; set "b" "${`\${a}`.repeat(21)}";`;
    expect(await runFailure(long, { compile: { limits } })).toBe('1:47 a text has become too long');
  });

  it('come and go with the run', async () => {
    expect(await variables(`global "b"; set "b" "\${global.a}+"; set "global.c" "\${b}";`, { variables: { a: '1' } })).toEqual({
      a: '1',
      b: '1+',
      c: '1+',
    });
  });

  it('are compared, and give the parts of what matched', async () => {
    expect(
      await variables(`global ["a", "b"]; set "x" "left-right";
        if string :matches "\${x}" "*-*" { set "a" "\${2} \${01} \${0} [\${3}]"; }
        if string :matches "\${x}" "*+*" { set "b" "never"; } else { set "b" "\${1}"; }`),
    ).toEqual({ a: 'right left left-right []', b: 'left' });
  });
});

describe('include', () => {
  const hostOf = (scripts: Record<string, string>): SieveHost => ({
    include: (name, location) => scripts[location === 'global' ? `global ${name}` : name],
  });
  const run = (script: string, scripts: Record<string, string>) =>
    runScript(`require ["include", "variables", "imap4flags"]; ${script}`, { host: hostOf(scripts) });
  const failing = (script: string, scripts: Record<string, string>, limits = {}) =>
    runFailure(`require ["include", "variables", "imap4flags"];\n${script}`, { host: hostOf(scripts), compile: { limits } });
  const head = 'require ["include", "variables", "imap4flags"]; ';

  it('runs other scripts, each with its own variables', async () => {
    const { flags } = await run(`set "x" "1"; include "a"; addflag "m\${x}\${y}"; return; addflag "never";`, {
      a: `${head} addflag "a\${x}"; set "x" "2"; set "y" "2"; include :global "a"; if true { return; } addflag "never";`,
      'global a': 'require "imap4flags"; addflag "g";',
    });
    expect(flags).toEqual(['a', 'g', 'm1']);
  });

  it('shares global variables, and stops them all with stop', async () => {
    const outcome = await run('global "x"; set "x" "1"; include "a"; addflag "never";', {
      a: `${head} global ["x", "y"]; set "y" "\${x}\${global.x}"; stop;`,
    });
    expect(outcome.variables).toEqual({ x: '1', y: '11' });
    expect(outcome.flags).toEqual([]);
  });

  it('includes once, or what is there', async () => {
    const scripts = { a: `require ["imap4flags", "variables", "include"]; global "n"; set "n" "\${n}x"; addflag "\${n}";` };
    expect(
      (await run('include "a"; include :once "a"; include :once :optional "none"; include :personal "a";', scripts)).flags,
    ).toEqual(['x', 'xx']);
  });

  it('says what is wrong', async () => {
    expect(await failing('include "a";', {})).toBe("2:9 there is no personal script 'a' to include");
    expect(await failing('include "a";', { a: 'keep;\n nothing;' })).toBe(
      "2:1 in the included script 'a', line 2, column 2: there is no command 'nothing'",
    );
    const loop = { a: `${head} include "b";`, b: `${head}\n if true { include "a"; }` };
    expect(await failing('include "a";', loop)).toBe(
      "2:1 in the included script 'a', line 1, column 50: in the included script 'b', line 2, column 12: the script 'a' includes itself",
    );
    expect(await failing('set "x" "1"; global "x";', {})).toBe(
      "2:14 the variable 'x' can't be made global: it has been set before",
    );
    const deep = Object.fromEntries([...Array(5).keys()].map((i) => [`s${i}`, `require "include"; include "s${i + 1}";`]));
    expect(await failing('include "s0";', deep, { maxIncludeDepth: 3 })).toMatch(/too deeply: at most 3 levels/);
    expect(await failing('include "a"; include "a"; include "a";', { a: '' }, { maxIncludes: 2 })).toMatch(
      /^2:27 too many scripts/,
    );
    expect(await runFailure('require "include"; include "a";')).toBe("1:28 there is no personal script 'a' to include");
  });

  it('waits for scripts that come later', async () => {
    const host: SieveHost = {
      include: async (name) =>
        `require ["include", "imap4flags"]; addflag "${name}"; ${name === 'a' ? 'include "b"; addflag "c"; return;' : ''}`,
    };
    const { flags } = await runScript('require ["include", "imap4flags"]; include "a"; addflag "d"; include "b";', { host });
    expect(flags).toEqual(['a', 'b', 'c', 'd']);
  });
});
