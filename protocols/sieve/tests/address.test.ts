import { describe, expect, it } from 'vitest';
import { conditionError, holds, matchesOf, messageOf } from './test-conditions.js';

const message = messageOf(
  Buffer.from(
    [
      'Return-Path: <>',
      'From: "Tim, the Boss" <Tim@Example.COM> (at work)',
      'Sender: <@relay.example,@other.example:sender@example.org>',
      'To: Friends: ken+sieve@example.net, "a b"@example.net;, lone, =?utf-8?q?Zo=C3=AB?= <zoe@example.net>',
      'Cc: undisclosed-recipients:;',
      'Bcc: <broken@, second@example.org',
      'Reply-To: Just a name',
      'Resent-To: user@[192.0.2.1]',
      'X-Forwarded-To: plus++two@example.org',
      'X-Utf8: zoë@münchen.example',
      '',
      '',
    ].join('\r\n'),
  ),
);
const asks = (condition: string) => holds(condition, { message });

describe('address', () => {
  it.each([
    [true, 'address "from" "tim@example.com"'],
    [true, 'address :all :is "FROM" "TIM@example.com"'],
    [false, 'address :all :comparator "i;octet" "from" "tim@example.com"'],
    [true, 'address :localpart "from" "tim"'],
    [true, 'address :domain "from" "example.com"'],
    [true, 'address :domain :matches "from" "*.com"'],
    // Names and comments are no part of an address.
    [false, 'address :contains "from" "boss"'],
    [false, 'address :contains "from" "work"'],
    [false, 'address :contains "to" "friends"'],
    [false, 'address :contains "to" "Zoë"'],
    // Groups are dissolved, routes dropped.
    [true, 'address :is "to" "ken+sieve@example.net"'],
    [true, 'address :is "to" "zoe@example.net"'],
    [true, 'address :is "sender" "sender@example.org"'],
    [false, 'address :contains "sender" "relay"'],
    [true, 'address :count "eq" "cc" "0"'],
    [false, 'address :contains "cc" ""'],
    [true, 'address :is "to" "\\"a b\\"@example.net"'],
    [true, 'address :localpart :is "to" "a b"'],
    [true, 'address :domain "resent-to" "[192.0.2.1]"'],
    // RFC 5233
    [true, 'address :user "to" "ken"'],
    [true, 'address :detail "to" "sieve"'],
    [true, 'address :user "from" "tim"'],
    [false, 'address :detail :contains "from" ""'],
    [true, 'address :detail "x-forwarded-to" "+two"'],
    // What is no address is looked at as a whole only.
    [true, 'address :is "to" "lone"'],
    [false, 'address :localpart :is "to" "lone"'],
    [false, 'address :domain :is "to" ""'],
    [true, 'address :is "reply-to" "just a name"'],
    [false, 'address :localpart :contains "reply-to" ""'],
    [true, 'address "bcc" "second@example.org"'],
    [true, 'address :is "return-path" ""'],
    [false, 'address :localpart :contains "x-none" ""'],
    [true, 'address :domain "x-utf8" "münchen.example"'],
    [true, 'address :localpart :comparator "i;unicode-casemap" "x-utf8" "ZOË"'],
    // RFC 5231 4.2: mailboxes are counted.
    [true, 'address :count "eq" :comparator "i;ascii-numeric" "to" "4"'],
    [true, 'address :count "eq" :comparator "i;ascii-numeric" ["from", "sender", "resent-to"] "3"'],
    [true, 'address :detail :count "eq" "from" "1"'],
    [true, 'address :value "gt" :all "from" "M"'],
    [true, 'address :index 2 ["from", "sender"] "sender@example.org"'],
    [false, 'address :index 1 ["from", "sender"] "sender@example.org"'],
    [true, 'address :regex "to" "^ken[+]s.*@"'],
  ])('%s: %s', async (expected, condition) => {
    expect(await asks(condition)).toBe(expected);
  });

  it('sets the match variables', async () => {
    expect((await matchesOf('address :matches "to" "*+*@*"', { message }))?.slice(0, 4)).toEqual([
      'ken+sieve@example.net',
      'ken',
      'sieve',
      'example.net',
    ]);
  });

  it('knows the separator that is configured', async () => {
    const dashed = { message: messageOf('To: ken--lists@example.org\n\n'), separator: '--' };
    expect(await holds('address :detail "to" "lists"', dashed)).toBe(true);
    expect(await holds('address :user "to" "ken"', dashed)).toBe(true);
    expect(await holds('address :detail "to" "sieve"', { message, separator: '' })).toBe(false);
  });

  it.each(['subject', 'Date', 'received', 'message-id', 'Content-Type'])('is not for %s', (name) => {
    expect(conditionError(`address "${name}" "x"`)).toMatch(/no addresses/);
  });

  it('has one address part', () => {
    expect(conditionError('address :user :domain "from" "x"')).toMatch(/exclude/);
  });
});
