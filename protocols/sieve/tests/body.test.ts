import { describe, expect, it } from 'vitest';
import { compileError, holds, matchesOf, messageOf } from './test-conditions.js';

/** The message of RFC 5173 5.2, with other words. */
const nested = messageOf(`From: Whomever
Content-Type: multipart/mixed; boundary=outer

Outer MIME prologue

--outer
Content-Type: multipart/alternative; boundary=inner

Inner MIME prologue

--inner
Content-Type: text/plain; charset="us-ascii"

Plain hello
--inner
Content-Type: text/html; charset="us-ascii"

<html><body>Mark<b>up</b> hello &amp; more</body></html>
--inner--

Inner MIME epilogue

--outer
Content-Type: message/rfc822

From: Someone Else
Subject: nested request

Embedded text
--outer
Content-Type: application/octet-stream
Content-Transfer-Encoding: base64

c2VjcmV0IGJ5dGVz
--outer
Content-Type: audio/mp3

xyz
--outer
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable
Content-Disposition: attachment; filename=a.txt

caf=E9 att=
ached
--outer--

Outer MIME epilogue
`);
const simple = messageOf(`Subject: x
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

R3LDvMOfZSBhdXMgV2llbg==
`);
const asks = (condition: string) => holds(condition, { message: nested });

describe('body', () => {
  it.each([
    // :raw
    [true, 'body :raw :contains "--inner--"'],
    [true, 'body :raw :contains "c2VjcmV0"'],
    [true, 'body :raw :contains "content-type: audio/mp3"'],
    [false, 'body :raw :contains "whomever"'],
    [false, 'body :raw :contains "secret bytes"'],
    [true, 'body :raw :matches "outer mime prologue*epilogue??"'],
    [true, 'body :count "eq" :raw "1"'],
    // :content
    [true, 'body :content "text" :contains "plain hello"'],
    [true, 'body :content "text/html" :contains "mark<b>up"'],
    [false, 'body :content "text/plain" :contains "markup"'],
    [true, 'body :content "TEXT/Plain" :contains "embedded text"'],
    [true, 'body :content "text/plain" :is "café attached"'],
    [true, 'body :content "application/octet-stream" :is "secret bytes"'],
    [true, 'body :content "application" :contains ""'],
    [false, 'body :content "application/pdf" :contains ""'],
    [true, 'body :content "audio/mp3" :contains ""'],
    [false, 'body :content "video" :contains ""'],
    [true, 'body :content ["video", "audio"] :is "xyz"'],
    [false, 'body :content "/text" :contains ""'],
    [false, 'body :content "text/" :contains ""'],
    [false, 'body :content "text/plain/x" :contains ""'],
    [true, 'body :content "" :contains "secret"'],
    [true, 'body :content "multipart" :contains "outer mime prologue"'],
    [true, 'body :content "multipart" :contains "outer mime epilogue"'],
    [true, 'body :content "multipart/alternative" :contains "inner mime prologue"'],
    [true, 'body :content "multipart/alternative" :contains "inner mime epilogue"'],
    [false, 'body :content "multipart/alternative" :contains "outer mime"'],
    [false, 'body :content "multipart" :contains "hello"'],
    [false, 'body :content "multipart" :contains "--"'],
    [false, 'body :content "multipart" :contains "content-type"'],
    [true, 'body :content "message/rfc822" :contains "nested request"'],
    [false, 'body :content "message/rfc822" :contains "embedded text"'],
    [false, 'body :content "text" :matches "*plain hello*markup*"'],
    [true, 'body :content "multipart" :count "eq" "4"'],
    // :text
    [true, 'body :contains "plain hello"'],
    [true, 'body :text :contains "markup hello & more"'],
    [false, 'body :text :contains "<b>"'],
    [true, 'body :text :contains "embedded text"'],
    [false, 'body :text :contains "secret"'],
    [true, 'body :text :regex "^plain.*"'],
    [true, 'body :comparator "i;octet" :contains "Plain"'],
    [false, 'body :comparator "i;octet" :contains "PLAIN"'],
  ])('%s: %s', async (expected, condition) => {
    expect(await asks(condition)).toBe(expected);
  });

  it('decodes before it compares', async () => {
    expect(await holds('body :contains "Grüße aus"', { message: simple })).toBe(true);
    expect(await holds('body :raw :contains "R3LDv"', { message: simple })).toBe(true);
    expect(await holds('body :content "text/plain" :is "Grüße aus Wien"', { message: simple })).toBe(true);
  });

  it('does not stop at NUL', async () => {
    const message = messageOf(Buffer.from('Subject: x\r\n\r\na\0b needle'));
    expect(await holds('body :raw :contains "needle"', { message })).toBe(true);
    expect(await holds('body :contains "needle"', { message })).toBe(true);
  });

  it('holds for nothing without a body', async () => {
    const bare = messageOf(Buffer.from('Subject: x\r\n'));
    expect(await holds('body :raw :contains ""', { message: bare })).toBe(false);
    expect(await holds('body :contains ""', { message: bare })).toBe(false);
    expect(await holds('body :count "eq" "0"', { message: bare })).toBe(true);
    expect(await holds('body :contains ""')).toBe(false);
    const empty = messageOf('Subject: x\n\n');
    expect(await holds('body :raw :is ""', { message: empty })).toBe(true);
  });

  it('sets no match variables', async () => {
    expect(await matchesOf('allof (header :matches "from" "W*", body :matches "*plain*")', { message: nested })).toEqual([
      'Whomever',
      'homever',
      ...Array(8).fill(''),
    ]);
  });

  it('has one transform', () => {
    expect(compileError('require "body"; if body :raw :text "x" { stop; }')).toMatch(/exclude/);
    expect(compileError('require "body"; if body :content :contains "x" { stop; }')).toMatch(/text/);
    expect(compileError('if body "x" { stop; }')).toContain('require "body"');
  });
});
