import { describe, expect, it } from 'vitest';
import type { SieveEnvelope } from '../contract.js';
import { compileError, conditionError, holds } from './test-conditions.js';

const envelope: SieveEnvelope = {
  from: '@relay.example:Tim+x@Example.com',
  to: ['ken+lists@example.org', 'other@example.net'],
  parts: {
    auth: ['tim@example.com'],
    notify: ['FAILURE', 'DELAY'],
    orcpt: ['rfc822;old+detail@example.org'],
    ret: ['HDRS'],
    envid: ['QQ314159'],
    bytimerelative: ['3600'],
    bymode: ['R'],
  },
};
const bounce: SieveEnvelope = { from: '', to: ['ken@example.org'] };

describe('envelope', () => {
  it.each([
    [true, 'envelope "from" "tim+x@example.com"'],
    [false, 'envelope :contains "from" "relay"'],
    [true, 'envelope :domain "from" "example.com"'],
    [true, 'envelope :user "from" "tim"'],
    [true, 'envelope :detail "from" "x"'],
    [true, 'envelope "TO" "other@example.net"'],
    [true, 'envelope :detail "to" "lists"'],
    [true, 'envelope :localpart :matches "to" "ken*"'],
    [true, 'envelope ["from", "to"] "ken+lists@example.org"'],
    [true, 'envelope :count "eq" :comparator "i;ascii-numeric" ["from", "to"] "3"'],
    [true, 'envelope "auth" "tim@example.com"'],
    [true, 'envelope :localpart "auth" "tim"'],
    [true, 'envelope "notify" "delay"'],
    [true, 'envelope :count "eq" "notify" "2"'],
    [false, 'envelope "notify" "success"'],
    [true, 'envelope "orcpt" "rfc822;old+detail@example.org"'],
    [true, 'envelope :detail "orcpt" "detail"'],
    [true, 'envelope "ret" "hdrs"'],
    [true, 'envelope :comparator "i;octet" "envid" "QQ314159"'],
    [true, 'envelope :value "gt" :comparator "i;ascii-numeric" "bytimerelative" "60"'],
    [true, 'envelope "bymode" "r"'],
    [false, 'envelope :contains "bytrace" ""'],
  ])('%s: %s', async (expected, condition) => {
    expect(await holds(condition, { envelope })).toBe(expected);
  });

  it.each([
    [true, 'envelope :all "from" ""'],
    [true, 'envelope :localpart "from" ""'],
    [true, 'envelope :domain "from" ""'],
    [true, 'envelope :detail "from" ""'],
    [true, 'envelope :count "eq" :comparator "i;ascii-numeric" "from" "0"'],
    [false, 'envelope "from" "x"'],
  ])('of a bounce: %s: %s', async (expected, condition) => {
    expect(await holds(condition, { envelope: bounce })).toBe(expected);
  });

  it('knows no reverse-path before there is one', async () => {
    expect(await holds('envelope :contains "from" ""', { envelope: { to: [] } })).toBe(false);
    expect(await holds('envelope :contains "to" ""', { envelope: { to: [] } })).toBe(false);
  });

  it.each([
    ['envelope "subject" "x"', /no part/],
    ['envelope :domain "ret" "x"', /addresses/],
    ['envelope :user "envid" "x"', /addresses/],
  ])('%s is refused', (condition, reason) => {
    expect(conditionError(condition)).toMatch(reason);
  });

  it('has the parts of RFC 6009 with their extensions', () => {
    const script = (extension: string, part: string) =>
      compileError(`require ["envelope"${extension}]; if envelope "${part}" "x" { stop; }`);
    for (const [extension, part] of [
      ['envelope-dsn', 'notify'],
      ['envelope-dsn', 'ORCPT'],
      ['envelope-deliverby', 'bymode'],
    ] as const) {
      expect(script('', part)).toContain(`require "${extension}"`);
      expect(script(`, "${extension}"`, part)).toBeUndefined();
    }
  });
});
