// biome-ignore-all lint/suspicious/noThenProperty: that is its name in the settings, and it is never a function.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ExpressionError,
  type ExpressionHost,
  type ExpressionSource,
  type ExpressionType,
  expressionLimits,
} from './contract.js';
import { newEvaluation, spend } from './evaluation.js';
import { factTypes } from './facts.js';
import { compileStage, type StageFacts } from './index.js';
import { locator, parseChecked } from './language.js';
import { compileTree } from './tree.js';

const variables = Object.keys(factTypes) as (keyof StageFacts)[];
const facts: Partial<StageFacts> = {
  sender: 'Ann.Lee+news@Example.ORG',
  sender_domain: 'example.org',
  remote_ip: '::ffff:10.1.2.3',
  size: 1000,
  helo: 'mx.example',
  is_tls: true,
};

function evaluate(source: ExpressionSource, type: ExpressionType, host?: ExpressionHost, given = facts): unknown {
  return compileStage(source, type, { variables }).evaluate(given, host);
}

function refusal(source: ExpressionSource, type: ExpressionType = 'bool', options = {}): ExpressionError {
  try {
    compileStage(source, type, { variables, ...options });
  } catch (error) {
    if (error instanceof ExpressionError) return error;
    throw error;
  }
  throw new Error(`accepted: ${JSON.stringify(source)}`);
}

/** Steps of one evaluation. */
function stepsOf(source: string, type: ExpressionType, given = facts): number {
  const locate = locator(source, undefined);
  const scope = { variables: new Set<string>(variables), loops: new Map(), locate };
  const { run } = compileTree(parseChecked(source, type, variables, locate), scope);
  const evaluation = newEvaluation(given, undefined);
  run(evaluation);
  return expressionLimits.maxSteps - evaluation.stepsLeft;
}

interface FakeHost extends ExpressionHost {
  asked: string[];
  elapse(): void;
}

function fakeHost(answers: Partial<ExpressionHost> = {}): FakeHost {
  const asked: string[] = [];
  const timers: (() => void)[] = [];
  const clock: Pick<ExpressionHost['clock'], 'setTimer'> = {
    setTimer: (_delayMs, callback) => {
      timers.push(callback);
      return { cancel: () => timers.splice(timers.indexOf(callback), 1) };
    },
  };
  const note = async <T>(what: string, value: T) => {
    asked.push(what);
    return value;
  };
  return {
    asked,
    elapse: () => {
      for (const callback of timers.splice(0)) callback();
    },
    clock,
    isLocalDomain: (domain) => note(`domain ${domain}`, domain === 'example.org'),
    isLocalAddress: (address) => note(`address ${address}`, address.startsWith('ann')),
    dnsQuery: (name, type) => note(`${type} ${name}`, ['10 mx.example', '20 mx2.example']),
    keyExists: (list, key) => note(`${list}/${key}`, key === 'yes'),
    keyGet: (list, key) => note(`${list}=${key}`, key === 'yes' ? 'found' : ''),
    counter: (name, key, periodSeconds) => note(`${name} ${key} ${periodSeconds}`, 3),
    ...answers,
  };
}

describe('values of expressions', () => {
  it.each<[ExpressionSource, ExpressionType, unknown]>([
    [true, 'bool', true],
    [25, 'int', 25],
    ["'mx.example.net'", 'string', 'mx.example.net'],
    ["['a', 'b']", 'strings', ['a', 'b']],
    ['[]', 'strings', []],
    ["sender_domain == 'example.org' && is_tls", 'bool', true],
    ["is_tls ? 'yes' : 'no'", 'string', 'yes'],
    ['1 + 2 * 3 - 7 / 2 % 3', 'int', 7],
    ['-7 / 2', 'int', -3],
    ['-(0 * 5)', 'int', 0],
    ["string(0 * -1) + ':' + string(is_tls)", 'string', '0:true'],
    ["int('042') + min(size, 5) + max(1, 2)", 'int', 49],
    ["recipient == '' && rcpt_count == 0 && !(2 != 2)", 'bool', true],
    ['size > 999 && size >= 1000 && size < 1001 && size <= 1000', 'bool', true],
    ["'a' < 'b' && !('b' <= 'a')", 'bool', true],
    ["helo in ['mx.example', 'other'] && !(3 in [1, 2])", 'bool', true],
    ["['a'] + ['b'] == ['a', 'b'] && ['a'] != ['b'] && ['a'] != ['a', 'a']", 'bool', true],
    ["split(sender, '@')[0]", 'string', 'Ann.Lee+news'],
    ["sender.split('@').map(x, x.lower()).join('|')", 'string', 'ann.lee+news|example.org'],
    ["join(sender.split('').filter(c, c == 'e'), ',')", 'string', 'e,e,e,e'],
    ["['a', 'bb', 'ccc'].map(x, size(x) > 1, x + '!')", 'strings', ['bb!', 'ccc!']],
    ["['a', 'bb'].exists(x, x == 'bb') && ['a', 'a'].all(x, x == 'a')", 'bool', true],
    ["['a', 'bb'].exists_one(x, x == 'a') && !['a', 'a'].exists_one(x, x == 'a') && ![1].exists_one(x, x == 2)", 'bool', true],
    ["[['a'], ['b']].map(x, x.map(x, x + x).join(''))", 'strings', ['aa', 'bb']],
    ["['a', 'b'].map(x, ['c', 'd'].map(y, x + y).join('-'))", 'strings', ['ac-ad', 'bc-bd']],
    ['local_part(sender) + domain_of(sender)', 'string', 'Ann.Lee+newsexample.org'],
    ["local_part('\"a@b\"@c') + '/' + domain_of(helo)", 'string', '"a@b"/'],
    ["size('añ😀') + 'abc'.size() + size([1, 2])", 'int', 8],
    ["' x '.trim().upper() + 'abcd'.substring(1, 3) + 'abcd'.substring(3)", 'string', 'Xbcd'],
    ["'abcabc'.indexOf('c') * 10 + 'abcabc'.lastIndexOf('c')", 'int', 25],
    ["sender.startsWith('Ann') && sender.endsWith('ORG') && sender.contains('+') && !helo.contains('x.y')", 'bool', true],
    ["matches(sender, '(?i)@example\\\\.org$') && sender.matches('^Ann')", 'bool', true],
    ["captures(sender, '^([^+@]*)(?:\\\\+([^@]*))?@')", 'strings', ['Ann.Lee+news@', 'Ann.Lee', 'news']],
    ["captures(sender, '^x(y)?')", 'strings', []],
    ["captures('xz', 'x(y)?')", 'strings', ['x', '']],
    ["glob(helo, 'mx.*') && !glob(helo, 'mx') && glob(helo, 'm?.e*e') && glob(helo, 'MX.*', true)", 'bool', true],
    ["glob_captures(sender, '*+*@?xample.*', true)", 'strings', ['Ann.Lee+news@Example.ORG', 'Ann.Lee', 'news', 'E', 'ORG']],
    [
      "network_of('2001:db8:1:2:3::4') + ' ' + network_of('::ffff:10.1.2.3') + ' ' + network_of('x')",
      'string',
      '2001:db8:1:2::/64 10.1.2.3 x',
    ],
    ["in_network(remote_ip, '10.0.0.0/8') && in_network(remote_ip, ['192.0.2.1', '10.1.2.3'])", 'bool', true],
    ["in_network('2001:db8::1', '2001:db8::/32') && in_network('10.0.0.1', '::ffff:10.0.0.0/104')", 'bool', true],
    ["in_network('', '0.0.0.0/0') || in_network('0x7f.1', '0.0.0.0/0') || in_network('::1', '0.0.0.0/0')", 'bool', false],
    ['hash(sender) == hash(sender) && hash(sender) >= 0 && hash(sender) != hash(helo)', 'bool', true],
  ])('%s', (source, type, wanted) => {
    expect(evaluate(source, type)).toEqual(wanted);
  });

  it('spreads hashes evenly, and never otherwise than it did', () => {
    expect(evaluate("hash('ann@example.org')", 'int')).toBe(
      evaluate('hash(sender)', 'int', undefined, { sender: 'ann@example.org' }),
    );
    const stage = compileStage('hash(recipient) % 4', 'int', { variables });
    const shares = [0, 0, 0, 0];
    for (let i = 0; i < 4000; i++) shares[stage.evaluate({ recipient: `user${i}@example.org` }) as number]!++;
    for (const share of shares) expect(Math.abs(share - 1000)).toBeLessThan(150);
  });

  it('folds what depends on nothing', () => {
    const constants: [ExpressionSource, ExpressionType, unknown][] = [
      ["'a' + lower('B')", 'string', 'ab'],
      ['false && is_tls', 'bool', false],
      ['true || is_tls', 'bool', true],
      ["1 < 2 ? 'x' : sender", 'string', 'x'],
      [[{ if: 'false', then: 'size' }, { else: 4 }], 'int', 4],
      [[{ if: 'true', then: 5 }, { else: 'size' }], 'int', 5],
    ];
    for (const [source, type, value] of constants) expect(compileStage(source, type, { variables }).constant).toEqual(value);
    expect(compileStage('size', 'int', { variables }).constant).toBeUndefined();
  });

  it('takes the first alternative whose condition holds', () => {
    const source = [{ if: 'size > 5000', then: 1 }, { if: 'is_tls', then: 'size + 1' }, { if: 'true', then: 3 }, { else: 4 }];
    expect(evaluate(source, 'int')).toBe(1001);
    expect(evaluate(source, 'int', undefined, { size: 6000 })).toBe(1);
    expect(evaluate(source, 'int', undefined, {})).toBe(3);
    const open = compileStage([{ if: 'is_tls', then: 1 }], 'int', { variables, otherwise: 'size * 2' });
    expect(open.evaluate({ size: 4 })).toBe(8);
  });

  it('gives numbers without fractions, and says when one gets too large', () => {
    expect(evaluate('age', 'int', undefined, { age: 12.9 })).toBe(12);
    expect(evaluate('age', 'int', undefined, { age: Number.NaN })).toBe(0);
    expect(() => evaluate('size * size * size', 'int', undefined, { size: 1e15 })).toThrow(
      'line 1, column 1: the number becomes',
    );
    expect(() => evaluate('10 / size', 'int', undefined, {})).toThrow('division by zero');
    expect(() => evaluate("split(sender, '@')[5]", 'string')).toThrow('there is none at 5');
    expect(() => evaluate("split(sender, '@')[-1]", 'string')).toThrow('there is none at -1');
  });
});

describe('what is refused when it is saved', () => {
  it.each<[string, ExpressionType, string]>([
    ['recipent', 'string', "line 1, column 1: there is no variable 'recipent'"],
    ['is_tls &&\n  foo', 'bool', "line 2, column 3: there is no variable 'foo'"],
    ['sender', 'bool', 'it gives string, but bool is wanted here'],
    ['[1]', 'strings', 'it gives list<int>, but list<string> is wanted here'],
    ['size + sender', 'int', "int + string: these types don't go together"],
    ['lower(size)', 'string', 'there is no lower(int), but lower(string): string'],
    ['nope(size)', 'string', "there is no function 'nope'"],
    ['size ==', 'bool', 'line 1, column 8: the expression ends too early'],
    ['(size', 'int', 'the expression ends too early'],
    ['  ', 'bool', 'an expression is missing'],
    ['[] + [size]', 'strings', 'line 1, column 1: nothing can be added to an empty list'],
    ["'a' + ([] + [size])[0]", 'string', 'nothing can be added to an empty list'],
    ["[[]].map(x, x + [size])[0][0] + 'a'", 'string', 'nothing can be added to an empty list'],
    ["join([[]][0] + [1], ',')", 'string', 'nothing can be added to an empty list'],
    ["[].filter(x, x == 'a') + [1]", 'strings', 'nothing can be added to an empty list'],
    ['1 / 0', 'int', 'division by zero'],
    ['is_tls && 1 / 0 == 1', 'bool', 'line 1, column 11: division by zero'],
    ["matches(sender, '(')", 'bool', 'is no regular expression'],
    ["matches(sender, '(?=a)')", 'bool', 'is no regular expression'],
    ["matches(sender, '((a{30}){30}){30}')", 'bool', 'is no regular expression'],
    ["matches(sender, '\\\\pL{999}\\\\pL{999}')", 'bool', 'too large'],
    ['matches(sender, helo)', 'bool', 'must not depend on variables'],
    ["in_network(remote_ip, '10.0.0.0/33')", 'bool', 'from 0 to 32'],
    ["in_network(remote_ip, ['10.0.0.1', 'mx.example'])", 'bool', "'mx.example' is no address or network"],
    ["dns_query(helo, 'HTTP')", 'strings', 'the type is one of'],
    ["key_exists('Bad list', sender)", 'bool', 'the name of a list'],
    ['counter(sender, helo, 60)', 'int', 'must not depend on variables'],
    ["counter('mail', helo, 0)", 'int', 'the period is from 1'],
    ['1.5', 'int', 'it gives double'],
    ['1.5 < 2.5', 'bool', 'only whole numbers'],
    ['9007199254740993', 'int', 'the number is beyond'],
    ["{'a': 1}", 'int', 'there are no maps'],
    ["google.protobuf == 'x'", 'bool', ''],
    ["dyn(sender) == 'x'", 'bool', "there is no function 'dyn'"],
    ['type(sender) == string', 'bool', "there is no function 'type'"],
    ['cel.bind(x, size, x)', 'int', "there is no function 'bind'"],
    ['has(sender.x)', 'bool', "there is no function 'has'"],
    ["timestamp('2030-01-01T00:00:00Z') == timestamp(1)", 'bool', 'there is no function'],
    ["b'a' == b'a'", 'bool', 'only whole numbers'],
    ['null == null', 'bool', 'only whole numbers'],
    ['sender.constructor', 'string', 'cannot index'],
    ["sender['length']", 'int', 'cannot index'],
    ['__proto__', 'bool', 'reserved'],
    ['constructor', 'bool', "there is no variable 'constructor'"],
    ['toString()', 'string', "there is no function 'toString'"],
    [`${'('.repeat(60)}true${')'.repeat(60)}`, 'bool', 'levels of nesting'],
    [`${'1+'.repeat(300)}1`, 'int', 'more than 500 parts'],
    [`1 in [${'1,'.repeat(250)}1]`, 'bool', 'more than 200 elements'],
    [`'${'x'.repeat(5000)}' == helo`, 'bool', 'longer than 4096 bytes'],
  ])('%s', (source, type, wanted) => {
    expect(refusal(source, type).message).toContain(wanted);
  });

  it('names variables of other stages', () => {
    expect(refusal('recipient', 'string', { variables: ['sender'] }).reason).toBe("'recipient' has no value at this stage");
  });

  it('tells the place in a list', () => {
    const place = (source: ExpressionSource) => refusal(source, 'int').position;
    expect(
      place([
        { if: 'true', then: 1 },
        { if: 'is_tls', then: 2 },
        { if: 'is_tls\n|| x', then: 3 },
      ]),
    ).toEqual({
      place: '[2].if',
      offset: 10,
      line: 2,
      column: 4,
    });
    expect(place([{ if: 'is_tls', then: 'sender' }, { else: 1 }])?.place).toBe('[0].then');
    expect(place([{ if: 'is_tls', then: 1 }])?.place).toBe('[1]');
    expect(place([{ else: 1 }, { if: 'is_tls', then: 1 }])?.place).toBe('[1]');
    expect(place([{ if: 'is_tls', then: true }, { else: 1 }])?.place).toBe('[0].then');
    expect(refusal([{ if: 'is_tls', then: 5.5 }, { else: 1 }], 'int').message).toContain('5.5 is no whole number');
    expect(refusal(Array(65).fill({ if: 'true', then: 1 }), 'int').message).toContain('more than 64 alternatives');
  });
});

describe('cost', () => {
  const nested = (depth: number, body: string): string =>
    depth === 0 ? body : `split(sender, '').exists(x${depth}, ${nested(depth - 1, body)})`;
  const hostile = { ...facts, sender: '@'.repeat(5_000) };

  it('ends every evaluation after its steps', () => {
    const expensive: [string, ExpressionType][] = [
      [nested(5, 'x1 == helo'), 'bool'],
      [`${'[1,2,3,4,5,6,7,8,9,10].exists(x, '.repeat(8)}size == 1${')'.repeat(8)}`, 'bool'],
      ["split(sender, '').map(x, split(sender, '').join(x)).join('')", 'string'],
      [`${"split(sender, '') + ".repeat(40)}split(sender, '') == ['']`, 'bool'],
      ["split(sender, '').filter(x, matches(sender, '(@|@@)*$')) == ['']", 'bool'],
      ["split(sender, '').exists(x, glob(sender, '*@*@*@*@*@*@?@*x'))", 'bool'],
      ["split(sender, '').exists(x, x + x in split(sender, ''))", 'bool'],
      // A search compares at every place when the text that is looked for nearly fits everywhere.
      ["(sender + sender).lastIndexOf(sender + 'x') == 0", 'bool'],
      ["(sender + sender).contains('@@@@@@@x' + sender)", 'bool'],
      ["split(sender + sender, sender + 'x') == ['']", 'bool'],
    ];
    for (const [source, type] of expensive)
      expect(() => evaluate(source, type, undefined, hostile)).toThrow('more than 20000 steps');
  });

  it('counts what it does, and little for ordinary expressions', () => {
    expect(stepsOf("sender_domain == 'example.org' && in_network(remote_ip, '10.0.0.0/8')", 'bool')).toBeLessThan(20);
    expect(stepsOf("split(sender, '').filter(x, x == 'a')", 'strings')).toBeLessThan(200);
    const long = { sender: 'x'.repeat(60_000) };
    expect(stepsOf("sender.contains('y')", 'bool', long)).toBeGreaterThan(60_000 / 64);
    expect(stepsOf("matches(sender, 'y+$')", 'bool', long)).toBeGreaterThan(60_000 / 64);
    expect(stepsOf('sender == helo', 'bool', { ...long, helo: 'y'.repeat(60_000) })).toBeGreaterThan(60_000 / 64);
    expect(stepsOf("sender.lastIndexOf('@') > sender.indexOf('.')", 'bool')).toBeLessThan(20);
  });

  it('does not lose count of what is no number', () => {
    const evaluation = newEvaluation({}, undefined);
    expect(() => spend(evaluation, Number.NaN)).toThrow('more than 20000 steps');
    expect(() => spend(evaluation, 1)).toThrow('more than 20000 steps');
  });

  it('takes no text that is too long', () => {
    const long = { sender: 'x'.repeat(40_000) };
    expect(() => evaluate('sender + sender', 'string', undefined, long)).toThrow('longer than 65536');
    expect(() => evaluate("join([sender, sender], '')", 'string', undefined, long)).toThrow('longer than 65536');
  });

  it('limits how often the host is asked', () => {
    const host = fakeHost();
    const answer = evaluate("split(sender, '').exists(x, key_exists('list', x))", 'bool', host, { sender: 'n'.repeat(100) });
    return expect(answer)
      .rejects.toThrow('more than 20000 steps')
      .then(() => expect(host.asked.length).toBeLessThan(40));
  });
});

describe('asking the host', () => {
  it('waits only where a function of the host is called', async () => {
    const source = "is_tls || is_local_domain('Example.ORG')";
    expect(compileStage(source, 'bool', { variables }).mayWait).toBe(true);
    expect(evaluate(source, 'bool', fakeHost())).toBe(true);
    const host = fakeHost();
    const answer = evaluate(source, 'bool', host, {});
    expect(answer).toBeInstanceOf(Promise);
    expect(await answer).toBe(true);
    expect(host.asked).toEqual(['domain example.org']);
  });

  it.each<[ExpressionSource, ExpressionType, unknown, string[]]>([
    ["key_get('names', 'YES') + '!'", 'string', 'found!', ['names=yes']],
    ["is_local_address(sender.lower()) && key_exists('a', 'no')", 'bool', false, ['address ann.lee+news@example.org', 'a/no']],
    ["key_exists('a', 'no') && is_local_domain(helo)", 'bool', false, ['a/no']],
    ["dns_query(helo, 'mx').map(x, x.split(' ')[1])", 'strings', ['mx.example', 'mx2.example'], ['MX mx.example']],
    ["['no', 'yes', 'later'].exists(x, key_exists('a', x))", 'bool', true, ['a/no', 'a/yes']],
    ["['no', 'yes'].filter(x, key_exists('a', x))", 'strings', ['yes'], ['a/no', 'a/yes']],
    ["['no', 'yes'].map(x, key_exists('a', x), x + x)", 'strings', ['yesyes'], ['a/no', 'a/yes']],
    [
      "['a', 'b'].map(x, ['c', 'd'].map(y, key_get('l', y) + x + y).join('')).join(',')",
      'string',
      'acad,bcbd',
      ['l=c', 'l=d', 'l=c', 'l=d'],
    ],
    ["counter('mail', remote_ip, 60) > 2 ? 450 : 250", 'int', 450, ['mail ::ffff:10.1.2.3 60']],
    [
      [{ if: "key_exists('a', 'no')", then: 1 }, { if: "key_exists('a', 'yes')", then: 2 }, { else: 3 }],
      'int',
      2,
      ['a/no', 'a/yes'],
    ],
  ])('%j', async (source, type, wanted, asked) => {
    const host = fakeHost();
    expect(await evaluate(source, type, host)).toEqual(wanted);
    expect(host.asked).toEqual(asked);
  });

  it('says what went wrong, and where', async () => {
    const failing = fakeHost({ dnsQuery: () => Promise.reject(new Error('the name service is silent')) });
    const failed = evaluate("is_tls &&\n dns_query(helo, 'A') == []", 'bool', failing);
    await expect(failed).rejects.toThrow('line 2, column 2: dns_query: the name service is silent');
    await expect(failed).rejects.toBeInstanceOf(ExpressionError);
    const throwing = fakeHost({
      counter: () => {
        throw new RangeError('no such limit');
      },
    });
    await expect(evaluate("counter('a', helo, 60)", 'int', throwing)).rejects.toThrow('counter: no such limit');
    expect(() => evaluate("key_exists('a', 'b')", 'bool')).toThrow('there is nobody to ask');
    await expect(evaluate("[dns_query(helo, 'A')[7]]", 'strings', fakeHost())).rejects.toThrow('there is none at 7');
  });

  it('gives up after its time, and does nothing more then', async () => {
    let answer = (_: boolean): void => undefined;
    const host = fakeHost({ isLocalDomain: () => new Promise((resolve) => (answer = resolve)) });
    const waiting = evaluate("is_local_domain(helo) && key_exists('a', 'yes')", 'bool', host) as Promise<boolean>;
    host.elapse();
    await expect(waiting).rejects.toThrow('no answer within 10000 ms');
    answer(true);
    await new Promise(setImmediate);
    expect(host.asked).toEqual([]);
  });

  it('keeps the loops of concurrent evaluations apart', async () => {
    const stage = compileStage("split(sender, '').map(x, key_get('l', x) + x).join('')", 'string', { variables });
    const host = fakeHost();
    const all = ['abc', 'xyz', '123'].map((sender) => stage.evaluate({ sender }, host));
    expect(await Promise.all(all)).toEqual(['abc', 'xyz', '123']);
  });
});

describe('hostile input', () => {
  const words = fc.constantFrom(
    ...[
      "'",
      '"',
      '(',
      ')',
      '[',
      ']',
      '{',
      '}',
      '.',
      ',',
      '?',
      ':',
      '==',
      '&&',
      '||',
      '!',
      '-',
      '+',
      '%',
      'in',
      '__proto__',
      'constructor',
    ],
    ...[
      'sender',
      'size',
      'is_tls',
      "'a'",
      '1',
      'true',
      'map(x,',
      'x',
      'split(',
      'matches(',
      'lower(',
      'dyn(',
      'null',
      '\\',
      '\n',
      'r"',
      "b'",
    ],
  );

  it('answers any text with a stage or an ExpressionError', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(words, { maxLength: 30 }).map((parts) => parts.join(' ')),
    );
    const type = fc.constantFrom<ExpressionType>('bool', 'int', 'string', 'strings');
    fc.assert(
      fc.property(text, type, (source, wanted) => {
        try {
          const value = evaluate(source, wanted);
          expect(typeof value).toBe({ bool: 'boolean', int: 'number', string: 'string', strings: 'object' }[wanted]);
        } catch (error) {
          expect(error).toBeInstanceOf(ExpressionError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('treats facts as text only', () => {
    const stages = [
      "split(sender, '@').map(x, x.lower()).join('@') == sender.lower()",
      "size(captures(sender, '^(.*)$')) <= 2",
      "glob(sender, '*')",
      "local_part(sender).contains('\\\\') || domain_of(sender) == domain_of(sender)",
      'hash(sender) >= 0 && !in_network(sender, "10.0.0.0/8")',
    ].map((source) => compileStage(source, 'bool', { variables }));
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('__proto__', 'constructor', '$1', '$&', '\0', '(.*)*', '"'),
    );
    fc.assert(
      fc.property(text, (sender) => {
        for (const stage of stages) expect(stage.evaluate({ sender })).toBe(true);
      }),
    );
  });
});
