/** `exists`, `size`, `environment`, `spamtest`, `virustest`, `valid_ext_list`. */
import { describe, expect, it } from 'vitest';
import { compileError, holds, messageOf } from './test-conditions.js';

describe('exists and size', () => {
  const message = messageOf('From: a\nX-Empty:\n\n0123456789');
  it.each([
    [true, 'exists "from"'],
    [true, 'exists ["FROM", "x-empty"]'],
    [false, 'exists ["from", "date"]'],
    [false, 'exists "x empty"'],
    [true, 'size :over 30'],
    [false, 'size :over 31'],
    [false, 'size :under 31'],
    [true, 'size :under 32'],
    [true, 'size :under 1K'],
  ])('%s: %s', async (expected, condition) => {
    expect(await holds(condition, { message })).toBe(expected);
  });

  it('size needs one of its tags', () => {
    expect(compileError('if size 100 { stop; }')).toMatch(/':over' or ':under'/);
    expect(compileError('if size :over :under 100 { stop; }')).toMatch(/exclude/);
    expect(compileError('if size :over "100" { stop; }')).toMatch(/number/);
  });

  it('size is what the client has declared before there is a message', async () => {
    const envelope = { to: [], parts: { size: ['5000'] } };
    expect(await holds('size :over 4K', { envelope })).toBe(true);
    expect(await holds('size :under 4K', { envelope })).toBe(false);
    expect(await holds('size :under 4K', { envelope: { to: [] } })).toBe(false);
    expect(await holds('size :over 0', { envelope: { to: [] } })).toBe(false);
  });
});

describe('environment', () => {
  const environment = { name: 'Starling', 'remote-ip': '192.0.2.7', 'remote-host': '', 'vnd.starling.x': 'y' };
  it.each([
    [true, 'environment "name" "starling"'],
    [true, 'environment "NAME" "starling"'],
    [true, 'environment :matches "remote-ip" "192.0.2.*"'],
    [true, 'environment :contains "remote-host" ""'],
    [true, 'environment :is "remote-host" ""'],
    [false, 'environment :contains "location" ""'],
    [false, 'environment :contains "constructor" ""'],
    [true, 'environment :count "eq" "name" "1"'],
    [true, 'environment :count "eq" "remote-host" "0"'],
    [false, 'environment :count "eq" "location" "0"'],
    [true, 'environment "vnd.starling.x" ["x", "y"]'],
  ])('%s: %s', async (expected, condition) => {
    expect(await holds(condition, { environment })).toBe(expected);
  });
});

describe('spamtest and virustest', () => {
  const numeric = ':comparator "i;ascii-numeric"';
  const score = (value: string) => ({ environment: { 'vnd.starling.spam-score': value } });
  const percent = (value: string) => ({ environment: { 'vnd.starling.spam-percent': value } });
  it.each([
    [true, 'spamtest "0"', {}],
    [true, `spamtest :count "eq" ${numeric} "0"`, {}],
    [true, `spamtest :percent :count "eq" ${numeric} "0"`, {}],
    [true, 'spamtest :percent "0"', {}],
    [true, `spamtest :value "ge" ${numeric} "3"`, score('7')],
    [false, `spamtest :value "ge" ${numeric} "8"`, score('7')],
    [true, 'spamtest "1"', score('0')],
    [true, 'spamtest "10"', score('44')],
    [true, 'spamtest :percent "67"', score('7')],
    [true, 'spamtest :percent "0"', score('1')],
    [true, 'spamtest :count "eq" "1"', score('1')],
    [true, 'spamtest "1"', percent('0')],
    [true, 'spamtest "1"', percent('11')],
    [true, 'spamtest "2"', percent('12')],
    [true, 'spamtest "9"', percent('99.9')],
    [true, 'spamtest "10"', percent('100')],
    [true, `spamtest :percent :value "lt" ${numeric} "37"`, percent('36')],
    [true, 'spamtest "0"', score('high')],
    [true, 'virustest "0"', {}],
    [true, 'virustest "5"', { environment: { 'vnd.starling.virus-score': '5' } }],
    [true, `virustest :value "ge" ${numeric} "4"`, { environment: { 'vnd.starling.virus-score': '4' } }],
    [true, 'virustest :count "eq" "0"', {}],
  ])('%s: %s', async (expected, condition, options) => {
    expect(await holds(condition, options)).toBe(expected);
  });

  it('need one of their extensions', () => {
    const script = (extensions: string) => compileError(`${extensions} if spamtest "1" { stop; }`);
    expect(script('')).toMatch(/require/);
    expect(script('require "spamtest";')).toBeUndefined();
    expect(script('require "spamtestplus";')).toBeUndefined();
    expect(compileError('require "spamtest"; if spamtest :percent "1" { stop; }')).toContain('spamtestplus');
    expect(compileError('require "spamtest"; if virustest "1" { stop; }')).toContain('virustest');
  });
});

it('valid_ext_list asks the host', async () => {
  const host = { isListName: async (name: string) => name.startsWith('tag:') };
  expect(await holds('valid_ext_list ["tag:a", "tag:b"]', { host })).toBe(true);
  expect(await holds('valid_ext_list ["tag:a", "urn:b"]', { host })).toBe(false);
  expect(await holds('valid_ext_list "tag:a"')).toBe(false);
});
