/** What the actions of RFC 5228 and its extensions leave behind. */
import { describe, expect, it } from 'vitest';
import type { SieveHost } from '../contract.js';
import { compileFailure, runFailure, runScript, sieveMessage } from '../test-runs.js';

const actions = async (script: string, options: Parameters<typeof runScript>[1] = {}) =>
  (await runScript(script, options)).actions;

describe('fileinto', () => {
  it('has where, and with what', async () => {
    expect(
      await actions(
        'require ["fileinto", "copy", "mailbox", "imap4flags", "special-use"]; fileinto :copy :create :flags ["a", "\\\\seen A"] :specialuse "\\\\Junk" "Spam";',
      ),
    ).toEqual([{ kind: 'fileinto', mailbox: 'Spam', isCopy: true, creates: true, flags: ['a', '\\seen'], specialUse: '\\Junk' }]);
    expect(await actions('require ["fileinto", "mailboxid"]; fileinto :mailboxid "F1" "x";')).toEqual([
      { kind: 'fileinto', mailbox: 'x', isCopy: false, creates: false, mailboxId: 'F1' },
    ]);
  });

  it('is done once for a mailbox', async () => {
    const script = 'require ["fileinto", "copy", "mailbox"]; fileinto :copy :create "a"; fileinto "b"; fileinto "a";';
    expect(await actions(script)).toMatchObject([
      { mailbox: 'a', isCopy: false, creates: true },
      { mailbox: 'b', isCopy: false, creates: false },
    ]);
  });

  it('refuses what is no name', async () => {
    expect(compileFailure('require "fileinto"; fileinto "";')).toBe('1:30 this is no name of a mailbox');
    expect(compileFailure('require "fileinto"; fileinto "a\nb";')).toBe('1:30 this is no name of a mailbox');
    expect(compileFailure('require ["fileinto", "special-use"]; fileinto :specialuse "Junk" "a";')).toMatch(/no special use/);
    expect(await runFailure(`require ["fileinto", "variables"]; fileinto "\${a}";`)).toBe('1:45 this is no name of a mailbox');
  });
});

describe('mailboxes', () => {
  const mailboxes = [
    { name: 'A', specialUse: '\\Junk', mailboxId: 'F1' },
    { name: 'B', specialUse: '\\Sent', mailboxId: 'F2' },
  ];
  const has: NonNullable<SieveHost['hasMailbox']> = (wanted) =>
    mailboxes.some((mailbox) =>
      Object.entries({ ...mailbox, ...wanted }).every(([key, value]) => mailbox[key as 'name'] === value),
    );
  const holds = async (test: string, hasMailbox: SieveHost['hasMailbox']) =>
    (await actions(`require ["mailbox", "mailboxid", "special-use"]; if ${test} { discard; }`, { host: { hasMailbox } })).length >
    0;

  it.each([
    ['mailboxexists "A"', true],
    ['mailboxexists ["A", "B"]', true],
    ['mailboxexists ["A", "C"]', false],
    ['mailboxidexists ["F2", "F1"]', true],
    ['mailboxidexists "A"', false],
    ['specialuse_exists ["\\\\Junk", "\\\\Sent"]', true],
    ['specialuse_exists "\\\\Trash"', false],
    ['specialuse_exists "A" "\\\\Junk"', true],
    ['specialuse_exists "A" ["\\\\Junk", "\\\\Sent"]', false],
  ])('%s', async (test, expected) => {
    expect(await holds(test, has)).toBe(expected);
    expect(await holds(test, async (wanted) => await has(wanted))).toBe(expected);
    expect(await holds(test, undefined)).toBe(false);
  });
});

describe('redirect', () => {
  it('has what it asks of SMTP', async () => {
    expect(
      await actions(
        `require ["redirect-dsn", "redirect-deliverby", "copy"];
         redirect :copy :notify "failure,DELAY" :ret "hdrs" :bytimerelative 600 :bymode "notify" :bytrace "Ann <a@b.example>";
         redirect :bytimeabsolute "2024-01-01T13:00:10+00:00" "c@d.example";`,
      ),
    ).toEqual([
      {
        kind: 'redirect',
        address: 'a@b.example',
        isCopy: true,
        notify: 'FAILURE,DELAY',
        ret: 'HDRS',
        deliverBy: { seconds: 600, mode: 'notify', isTraced: true },
      },
      {
        kind: 'redirect',
        address: 'c@d.example',
        isCopy: false,
        deliverBy: { seconds: 3610, mode: 'return', isTraced: false },
      },
    ]);
  });

  it('goes to a list', async () => {
    expect(await actions('require "extlists"; redirect :list "tag:x,2024:all";')).toEqual([
      { kind: 'redirect', address: '', isCopy: false, list: 'tag:x,2024:all' },
    ]);
  });

  it.each([
    ['require "redirect-dsn"; redirect :notify "never,delay" "a@b.example";', "1:42 'never,delay' is no value of ':notify'"],
    ['require "redirect-dsn"; redirect :ret "all" "a@b.example";', "1:39 'all' is no value of ':ret'"],
    ['require "redirect-deliverby"; redirect :bytrace "a@b.example";', "1:40 ':bymode' and ':bytrace' need"],
    ['redirect "a@b.example\n";', '1:10 '],
  ])('%s', (script, expected) => {
    expect(compileFailure(script)?.slice(0, expected.length)).toBe(expected);
  });

  it('refuses what is no address when it is known', async () => {
    expect(await runFailure(`require "variables";\nset "a" "x"; redirect "a@\${a} ";`.replace('x', 'b c'))).toBe(
      '2:25 this is no address of a mailbox',
    );
  });
});

describe('actions that exclude one another', () => {
  it.each([
    ['reject "a"; reject "b";', 'a message can be refused only once'],
    ['keep; reject "b";', "a message can't be refused beside 'keep'"],
    ['ereject "a"; redirect "a@b.example";', "a message can't be refused beside 'redirect'"],
    ['vacation "a"; reject "b";', "a message can't be refused beside 'vacation'"],
    ['vacation "a"; vacation "b";', "'vacation' can be used only once in a run"],
  ])('%s', async (script, expected) => {
    expect(await runFailure(`require ["reject", "ereject", "vacation"]; ${script}`)).toContain(expected);
  });

  it('leaves refusing and discarding', async () => {
    const script = 'require ["reject", "ereject"]; discard; ereject "no"; discard;';
    expect(await runScript(script)).toMatchObject({
      actions: [{ kind: 'discard' }, { kind: 'reject', reason: 'no', isEarly: true }],
      keepsImplicitly: false,
    });
  });
});

describe('vacation', () => {
  it('says all that the answer needs', async () => {
    expect(
      await actions(
        `require ["vacation", "fcc", "imap4flags", "mailbox"]; vacation :days 2 :subject "a
b" :from "Bob <bob@b.example>"
         :addresses ["b@b.example"] :mime :handle "h" :fcc "Sent" :flags "\\\\Seen" :create "away";`,
      ),
    ).toEqual([
      {
        kind: 'vacation',
        reason: 'away',
        seconds: 172_800,
        subject: 'a b',
        from: 'Bob <bob@b.example>',
        addresses: ['b@b.example'],
        isMime: true,
        handle: 'h',
        fcc: 'Sent',
        fccFlags: ['\\Seen'],
        fccCreates: true,
      },
    ]);
  });

  it('has bounds of its time', async () => {
    const seconds = async (tag: string) => (await actions(`require "vacation-seconds"; vacation ${tag} "x";`))[0];
    expect(await seconds('')).toMatchObject({ seconds: 604_800 });
    expect(await seconds(':days 0')).toMatchObject({ seconds: 86_400 });
    expect(await seconds(':days 4G')).toMatchObject({ seconds: 31_536_000 });
    expect(await seconds(':seconds 0')).toMatchObject({ seconds: 0 });
  });

  it('refuses what belongs to nothing', () => {
    expect(compileFailure('require ["vacation", "mailbox"]; vacation :create "x";')).toBe(
      "1:43 ':create' needs ':fcc' beside it",
    );
  });
});

describe('notify', () => {
  it('has method, sender, importance, options and message', async () => {
    const script = `require "enotify"; notify :from "Ann <a@b.example>" :importance "1" :options "a=b" :message "m" "MAILTO:x%40y.example?cc=z@y.example&body=%20";`;
    expect(await actions(script)).toEqual([
      {
        kind: 'notify',
        method: 'MAILTO:x%40y.example?cc=z@y.example&body=%20',
        from: 'Ann <a@b.example>',
        importance: '1',
        options: ['a=b'],
        message: 'm',
      },
    ]);
  });

  it.each([
    'tel:1',
    'mailto:',
    'mailto:x',
    'mailto:a@b.example?subject',
    'mailto:a@b.example?a=%zz',
    'mailto:a b@c.example',
    'mailto:a@b.example%0Ac',
  ])('does not know %s', async (method) => {
    expect(compileFailure(`require "enotify"; notify "${method}";`)).toMatch(/^1:27 this is no method/);
    expect((await runScript(`require "enotify"; if valid_notify_method "${method}" { discard; }`)).actions).toEqual([]);
  });
});

describe('duplicate', () => {
  const ids = async (script: string, wasSeen?: SieveHost['wasSeen']) =>
    (await runScript(`require "duplicate"; ${script}`, { host: { wasSeen } })).seenIds;

  it('notes what was not there before, once', async () => {
    expect(await ids('if anyof (duplicate, duplicate :seconds 5) {}')).toEqual([{ id: expect.any(String), seconds: 604_800 }]);
    expect(await ids('if duplicate {}', () => true)).toEqual([]);
    expect(await ids('if duplicate :last :seconds 4G {}', async () => true)).toEqual([
      { id: expect.any(String), seconds: 7_776_000 },
    ]);
    expect(await ids('if duplicate :header "x-none" {}')).toEqual([]);
  });

  it('tells handles and ids apart', async () => {
    const all = await ids(
      'if anyof (duplicate :uniqueid "a", duplicate :handle "a" :uniqueid "a", duplicate :handle "b" :uniqueid "a", duplicate :header "x-flag") {}',
    );
    expect(new Set(all.map(({ id }) => id)).size).toBe(4);
    const same = await ids('if anyof (duplicate, duplicate :header "message-id", duplicate :uniqueid "<1@a.example>") {}');
    expect(same).toHaveLength(1);
  });
});

describe('flags', () => {
  it('have one form and are each there once', async () => {
    const script =
      'require "imap4flags"; setflag ["\\\\Seen a", "A", "\\\\Recent", "b(c", "", "\\\\SEEN"]; addflag "$x  b"; removeflag ["A", "none"];';
    expect((await runScript(script)).flags).toEqual(['\\Seen', '$x', 'b']);
  });

  it('are asked for', async () => {
    const holds = async (test: string) =>
      (
        await runScript(
          `require ["imap4flags", "variables", "relational"]; setflag ["a", "b"]; setflag "v" "c d"; if hasflag ${test} { discard; }`,
        )
      ).actions.length > 0;
    expect(await holds('"B"')).toBe(true);
    expect(await holds('"x b"')).toBe(true);
    expect(await holds('"c"')).toBe(false);
    expect(await holds('["v", "w"] "c"')).toBe(true);
    expect(await holds(':contains "v" "a"')).toBe(false);
    expect(await holds(':count "eq" "2"')).toBe(true);
  });
});

describe('foreverypart', () => {
  const message = sieveMessage(`Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=utf-8

Grüße
--b
Content-Type: message/rfc822

Subject: x
Content-Type: text/html

<p>inner</p>
--b--
`);
  const texts = async (body: string) =>
    (
      await runScript(`require ["foreverypart", "extracttext", "variables", "include", "mime"]; global "a"; ${body}`, {
        message: { ...message, bytes: async (maxBytes) => await message.bytes(maxBytes) },
      })
    ).variables['a'];
  const note = (name: string) => `set "a" "\${a}${name}";`;
  const noteText = 'set "a" "$' + '{a}[$' + '{t}]";';

  it('goes through all parts, and through those within one', async () => {
    expect(await texts(`foreverypart { ${note('x')} }`)).toBe('xxxx');
    expect(await texts(`foreverypart { ${note('x')} foreverypart { ${note('y')} } }`)).toBe('xyyyxxyx');
    expect(await texts(`foreverypart { extracttext :first 4 :length "t"; ${noteText} }`)).toBe('[0][4][0][4]');
    expect(await texts(`foreverypart { extracttext :upper "t"; if string :contains "\${t}" "INNER" { ${note('i')} } }`)).toBe(
      'i',
    );
  });

  it('is left by break, with a name also the outer one', async () => {
    expect(await texts(`foreverypart { ${note('x')} break; } ${note('z')}`)).toBe('xz');
    expect(await texts(`foreverypart { ${note('x')} foreverypart { ${note('y')} break; } }`)).toBe('xyxxyx');
    expect(await texts(`foreverypart :name "o" { ${note('x')} foreverypart :name "i" { ${note('y')} break :name "o"; } }`)).toBe(
      'xy',
    );
    expect(await texts(`foreverypart { ${note('x')} return; } ${note('z')}`)).toBe('x');
  });

  it('ends within the steps of a run', async () => {
    const script = `require "foreverypart"; ${'foreverypart { '.repeat(5)} keep; ${'}'.repeat(5)}`;
    expect(await runFailure(script, { message, compile: { limits: { maxSteps: 10 } } })).toMatch(/too many steps/);
  });
});
