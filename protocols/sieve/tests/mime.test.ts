import { describe, expect, it } from 'vitest';
import { conditionError, holds, matchesOf, messageOf, runScript } from './test-conditions.js';

const message = messageOf(`From: tim@example.com
Content-Type: Multipart/Mixed; boundary="b"
Content-From: outer@example.com

--b
Content-Type: text/plain; charset=utf-8
Content-From: part@example.com

hello
--b
Content-Type: application/pdf; name="=?utf-8?q?r=C3=A9sum=C3=A9?="
Content-Disposition: Attachment; filename*=utf-8''important%20pl%C3%A4ne.pdf
Content-MD5: abc

x
--b
Content-Type: message/rfc822

Subject: within
Content-Type: text/html

<p>
--b
Content-Type: nonsense

y
--b--
`);
const asks = (condition: string) => holds(condition, { message });

describe('mime', () => {
  it.each([
    [true, 'header :mime :type "Content-Type" "multipart"'],
    [true, 'header :mime :subtype "Content-Type" "mixed"'],
    [true, 'header :mime :contenttype "Content-Type" "multipart/mixed"'],
    [false, 'header :mime :contenttype "Content-Type" "text/html"'],
    [true, 'header :mime :anychild :contenttype "Content-Type" "text/html"'],
    [true, 'header :mime :anychild :contenttype "Content-Type" "multipart/mixed"'],
    [true, 'header :mime :anychild :subtype "content-type" "pdf"'],
    [true, 'header :mime :anychild :type "content-disposition" "attachment"'],
    [true, 'header :mime :anychild :contenttype "content-disposition" "attachment"'],
    [false, 'header :mime :anychild :subtype "content-disposition" "attachment"'],
    [true, 'header :mime :anychild :subtype "content-disposition" ""'],
    [true, 'header :mime :type "from" ""'],
    [true, 'header :mime :anychild :param "filename" "Content-Disposition" "important pläne.pdf"'],
    [true, 'header :mime :anychild :param ["x", "NAME"] "Content-Type" "résumé"'],
    [true, 'header :mime :param "boundary" :matches "Content-Type" "?"'],
    [false, 'header :mime :param "charset" :contains "Content-Type" ""'],
    [true, 'header :mime :anychild :contains "subject" "within"'],
    [false, 'header :contains "subject" "within"'],
    [false, 'header :mime :contains "subject" "within"'],
    [true, 'header :mime :anychild :count "eq" :type "content-type" "5"'],
    [true, 'header :mime :anychild :count "eq" :param ["charset", "name"] "content-type" "2"'],
    [true, 'header :mime :anychild :count "eq" "content-type" "6"'],
    [true, 'header :mime :anychild :index 2 :contenttype "content-type" "text/plain"'],
    [true, 'exists :mime :anychild "content-md5"'],
    [false, 'exists :mime "content-md5"'],
    [false, 'exists "content-md5"'],
    [true, 'exists :mime :anychild ["content-md5", "from"]'],
    [false, 'exists :mime :anychild ["content-md5", "x-none"]'],
    [true, 'address :mime "content-from" "outer@example.com"'],
    [false, 'address :mime "content-from" "part@example.com"'],
    [true, 'address :mime :anychild :localpart "content-from" "part"'],
    [true, 'address :mime :anychild :count "eq" "content-from" "2"'],
  ])('%s: %s', async (expected, condition) => {
    expect(await asks(condition)).toBe(expected);
  });

  it('looks at the part that a loop is at', async () => {
    const script = `require ["mime", "foreverypart", "fileinto", "variables"];
      foreverypart {
        if header :mime :matches :subtype "Content-Type" "*" { fileinto "type \${1}"; }
        if header :mime :anychild :contenttype "Content-Type" "text/html" { fileinto "html within \${1}"; }
        if header :contains "subject" "within" { fileinto "wrong"; }
        if exists :mime "content-md5" { fileinto "md5 in \${1}"; }
        if exists "content-from" { fileinto "outer"; }
      }`;
    const { actions } = await runScript(script, { message });
    expect(actions.map((action) => (action.kind === 'fileinto' ? action.mailbox : action.kind))).toEqual([
      'type mixed',
      'html within mixed',
      'outer',
      'type plain',
      'type pdf',
      'md5 in pdf',
      'type rfc822',
      'html within rfc822',
      'type html',
      'html within html',
      'type ',
    ]);
  });

  it('sets the match variables', async () => {
    expect(
      (await matchesOf('header :mime :anychild :param "filename" :matches "content-disposition" "*.*"', { message }))?.slice(
        1,
        3,
      ),
    ).toEqual(['important pläne', 'pdf']);
  });

  it('sees the edited header of the message', async () => {
    const script = 'require ["mime", "editheader"]; addheader "X-New" "1"; if exists :mime :anychild "x-new" { discard; }';
    expect((await runScript(script, { message })).actions).toEqual([{ kind: 'discard' }]);
  });

  it('holds for nothing without a message', async () => {
    expect(await holds('exists :mime :anychild "from"')).toBe(false);
  });

  it.each([
    ['header :mime :type :subtype "a" "b"', /exclude/],
    ['exists :anychild "a"', /':mime'/],
    ['address :anychild "from" "b"', /':mime'/],
    ['address :mime :type "from" "b"', /no argument/],
  ])('%s is refused', (condition, reason) => {
    expect(conditionError(condition)).toMatch(reason);
  });
});
