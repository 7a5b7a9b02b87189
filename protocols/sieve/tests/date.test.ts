import { describe, expect, it } from 'vitest';
import { conditionError, holds, matchesOf, messageOf } from './test-conditions.js';
import { timeZoneItem } from './zones.js';

const message = messageOf(`Received: from a by b (x; y); Sun, 22 Nov 2026 23:30:00 -0800
Received: from x by a; Sat, 21 Nov 2026 10:00:00 +0000
Received: nonsense
Date: Mon, 23 Nov 2026 01:02:03 +0530
Resent-Date: 1 Feb 96 4:05 EST
X-Leap: 29 Feb 2023 00:00:00 +0000
X-Late: Fri, 31 Dec 9999 23:59:59 -1200
X-Zulu: 1 Jan 2024 00:00:00 -0000

`);
const zoned = (zone: string) => ({ message, environment: { [timeZoneItem]: zone } });
const part = async (arguments_: string, options: Parameters<typeof matchesOf>[1] = { message }) =>
  (await matchesOf(arguments_, options))?.[0];

describe('date', () => {
  it.each([
    ['year', '2026'],
    ['month', '11'],
    ['day', '23'],
    ['DATE', '2026-11-23'],
    ['julian', '61367'],
    ['hour', '01'],
    ['minute', '02'],
    ['second', '03'],
    ['time', '01:02:03'],
    ['iso8601', '2026-11-23T01:02:03+05:30'],
    ['std11', 'Mon, 23 Nov 2026 01:02:03 +0530'],
    ['zone', '+0530'],
    ['weekday', '1'],
  ])('%s of a date in its own zone is %s', async (name, value) => {
    expect(await part(`date :originalzone :matches "date" "${name}" "*"`)).toBe(value);
  });

  it.each([
    ['-0500', 'iso8601', '2026-11-22T14:32:03-05:00'],
    ['+0000', 'iso8601', '2026-11-22T19:32:03Z'],
    ['-0000', 'zone', '+0000'],
    ['+1400', 'date', '2026-11-23'],
    ['-0930', 'std11', 'Sun, 22 Nov 2026 10:02:03 -0930'],
    ['-0500', 'weekday', '0'],
    ['-0500', 'julian', '61366'],
  ])('in zone %s, %s is %s', async (zone, name, value) => {
    expect(await part(`date :zone "${zone}" :matches "date" "${name}" "*"`)).toBe(value);
  });

  it('uses the local time zone where none is named', async () => {
    const condition = 'date :matches "date" "iso8601" "*"';
    expect(await part(condition)).toBe('2026-11-22T19:32:03Z');
    expect(await part(condition, zoned('-0330'))).toBe('2026-11-22T16:02:03-03:30');
    expect(await part(condition, zoned('Europe/Berlin'))).toBe('2026-11-22T20:32:03+01:00');
    expect(await part(condition, zoned('Nowhere/Else'))).toBe('2026-11-22T19:32:03Z');
    expect(await part('currentdate :matches "iso8601" "*"', { ...zoned('Europe/Berlin'), nowMs: Date.UTC(2026, 6, 1, 12) })).toBe(
      '2026-07-01T14:00:00+02:00',
    );
  });

  it.each([
    // Behind the last semicolon; the first field unless `:index` names another.
    [true, 'date :zone "+0000" "received" "iso8601" "2026-11-23T07:30:00Z"'],
    [true, 'date :index 2 :zone "+0000" "received" "date" "2026-11-21"'],
    [true, 'date :index 2 :last :zone "+0000" "received" "date" "2026-11-21"'],
    [false, 'date :index 3 :contains "received" "year" ""'],
    [false, 'date :index 9 :contains "received" "year" ""'],
    [true, 'date :originalzone "resent-date" "time" "04:05:00"'],
    [true, 'date :originalzone "resent-date" "zone" "-0500"'],
    [true, 'date :value "ge" :originalzone "date" "hour" "01"'],
    [true, 'date :value "lt" :comparator "i;ascii-numeric" "date" "julian" "61368"'],
    [true, 'date :originalzone "x-zulu" "zone" "+0000"'],
    // No date, or none that the calendar has.
    [false, 'date :contains "x-leap" "year" ""'],
    [false, 'date :contains "x-late" "year" ""'],
    [true, 'date :originalzone "x-late" "year" "9999"'],
    [false, 'date :contains "x-none" "year" ""'],
    [true, 'date :count "eq" "date" "year" "1"'],
    [true, 'date :count "eq" "x-leap" "year" "0"'],
    [true, 'date :count "eq" "x-none" "year" "0"'],
  ])('%s: %s', async (expected, condition) => {
    expect(await holds(condition, { message })).toBe(expected);
  });

  it.each([
    [true, 'currentdate "weekday" "1"'],
    [true, 'currentdate "iso8601" "2026-11-23T08:05:09Z"'],
    [true, 'currentdate :zone "+0100" "time" "09:05:09"'],
    [true, 'currentdate :zone "-1000" "date" "2026-11-22"'],
    [true, 'allof (currentdate :value "ge" "date" "2026-11-01", currentdate :value "le" "date" "2026-11-30")'],
    [
      false,
      'anyof (currentdate :is "weekday" ["0", "6"], currentdate :value "lt" "hour" "08", currentdate :value "ge" "hour" "17")',
    ],
    [true, 'currentdate :count "eq" "date" "1"'],
  ])('%s: %s', async (expected, condition) => {
    expect(await holds(condition)).toBe(expected);
  });

  it.each([
    ['date :zone "+0100" :originalzone "date" "year" "x"', /exclude/],
    ['date :zone "CET" "date" "year" "x"', /\+hhmm/],
    ['date :zone "+2400" "date" "year" "x"', /\+hhmm/],
    ['date :zone "+0160" "date" "year" "x"', /\+hhmm/],
    ['date "date" "century" "x"', /no part/],
    ['date ["date", "received"] "year" "x"', /text/],
    ['date :last "date" "year" "x"', /':index'/],
    ['currentdate :originalzone "year" "x"', /no argument/],
    ['currentdate :index 1 "year" "x"', /no argument/],
  ])('%s is refused', (condition, reason) => {
    expect(conditionError(condition)).toMatch(reason);
  });
});
