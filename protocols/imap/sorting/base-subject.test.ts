import { describe, expect, it } from 'vitest';
import { baseSubject } from './base-subject.js';
import { casemap } from './collation.js';

describe('base subject (RFC 5256 2.1)', () => {
  it.each([
    ['Lunch', 'Lunch', false],
    ['Re: Lunch', 'Lunch', true],
    ['RE : Lunch', 'Lunch', true],
    ['re[2]: Lunch', 'Lunch', true],
    ['Fwd: Re: FW: Lunch', 'Lunch', true],
    ['[list] Lunch', 'Lunch', false],
    ['[list] [other] Re: [list] Lunch', 'Lunch', true],
    ['[list]', '[list]', false],
    ['[one] [two]', '[two]', false],
    ['Re: [two]', '[two]', true],
    ['Lunch (fwd)', 'Lunch', true],
    ['Lunch (FWD)  (fwd) ', 'Lunch', true],
    ['[foo] Fwd: [bar] Re: fw: b (fWd)  (fwd)', 'b', true],
    ['[Fwd: Lunch]', 'Lunch', true],
    ['re: [fwd: [fwd: re: [fwd: babylon]]]', 'babylon', true],
    ['[fwd: Lunch] today', 'today', false],
    ['  many \t spaces\there ', 'many spaces here', false],
    ['Ad: Re: x', 'Ad: Re: x', false],
    ['Regarding: x', 'Regarding: x', false],
    ['Re:', '', true],
    ['', '', false],
    ['[fwd: [abc]', '[abc', true],
    ['(fwd)', '', true],
    ['b (a)', 'b (a)', false],
  ])('%j is %j', (subject, text, isReply) => {
    expect(baseSubject(subject)).toEqual({ text, isReply });
  });

  it('takes no longer for hostile subjects', () => {
    for (const hostile of [
      '[a]'.repeat(3_000),
      '[fwd: '.repeat(1_500),
      're: '.repeat(2_000),
      `${'[fwd:'.repeat(1_000)}${']'.repeat(1_000)}`,
    ])
      expect(baseSubject(hostile).text.length).toBeLessThanOrEqual(hostile.length);
  });
});

describe('i;unicode-casemap (RFC 5051)', () => {
  it('takes case away, and puts letters apart', () => {
    expect(casemap('Straße')).toBe('STRAßE');
    expect(casemap('ÄÖÜ')).toBe(casemap('äöü'));
    expect(casemap('é')).toBe('E\u0301');
    expect(casemap('ǆ')).toBe(casemap('ǅ'));
    expect(casemap('ﬁ')).toBe('fi'.normalize('NFKD'));
    expect(casemap('ᾳ')).toBe(casemap('ᾼ'));
    expect(casemap('Мир')).toBe(casemap('мИР'));
    expect(casemap('plain [a]')).toBe('PLAIN [A]');
  });
});
