/** Whole scripts over messages. A row: what the script does, all that it decides. All extensions are required; `keep` alone is the implicit one. */
import { describe, expect, it } from 'vitest';
import type { SieveAction, SieveMessage, SieveOutcome } from '../index.js';
import { messageOf, type RunOptions, requireAll, runScript } from './test-conditions.js';

const messages = {
  plain: messageOf(`Return-Path: <ann@a.example>
Received: from a.example by b.example; Mon, 23 Nov 2026 07:00:00 +0000
Received: from home by a.example; Mon, 23 Nov 2026 06:59:58 +0000
From: Ann Archer <Ann@a.example>
To: Bob <bob+work@b.example>, carol@c.example
Cc: "D. Dan" <dan@d.example>
Subject: Lunch at noon?
Date: Mon, 23 Nov 2026 08:59:57 +0200
Message-ID: <1@a.example>
X-Priority: 1 (Highest)

Hello Bob!
`),
  list: messageOf(`From: Ed Editor via acme-users <acme-users@lists.acme.example>
To: acme-users@lists.acme.example
Subject: [acme-users] [fwd] version 1.0 is out
List-Id: Users of Acme <acme-users.lists.acme.example>
List-Unsubscribe: <https://lists.acme.example/>
Precedence: list
Date: Sun, 22 Nov 2026 23:30:00 -0800
Message-ID: <2@acme.example>

It is out.
`),
  umlauts: messageOf(`From: =?utf-8?q?J=C3=B6rg_M=C3=BCller?= <joerg@münchen.example>
To: =?iso-8859-1?q?Andr=E9?= <andre@b.example>
Subject: =?utf-8?b?R3LDvMOfZSBhdXM=?= =?utf-8?q?_K=C3=B6ln?=
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6ne Gr=FC=DFe
`),
  parts: messageOf(`From: shop@store.example
To: bob@b.example
Subject: Your invoice 2026-1177
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=o

--o
Content-Type: multipart/alternative; boundary=i

--i
Content-Type: text/plain

Total: 100 EUR
--i
Content-Type: text/html

<p>Total: <b>100</b>&nbsp;EUR</p>
--i--
--o
Content-Type: application/pdf; name=invoice-1177.pdf
Content-Disposition: attachment; filename="invoice-1177.pdf"
Content-Transfer-Encoding: base64

JVBERi0xLjQ=
--o
Content-Type: application/octet-stream
Content-Disposition: attachment; filename*=utf-8''r%C3%A9sum%C3%A9.exe

MZ
--o--
`),
  bounce: messageOf(`Return-Path: <>
From: Mail Delivery System <MAILER-DAEMON@b.example>
To: bob@b.example
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status; boundary=r

--r
Content-Type: text/plain

It did not work.
--r
Content-Type: message/delivery-status

Reporting-MTA: dns; b.example

Final-Recipient: rfc822; nobody@c.example
Action: failed
--r
Content-Type: message/rfc822

From: bob@b.example
Subject: the original
Content-Type: text/plain

hi
--r--
`),
  spam: messageOf(`From: "viagra@pills.example" <x1@pills.example>
To: undisclosed-recipients:;
Subject: MAKE MONEY FAST!!!
Subject: second subject
X-Spam-Score: 17.3
X-Spam-Flag: YES
Date: nonsense

buy
`),
  broken: messageOf(
    Buffer.from(
      'From: nobody at all\r\nTo: <a@b.example, , ;c@d.example\r\nBcc:\r\nSubject:\r\n\tfolded \0 subject\r\nNo colon here\r\nX-Dup: 1\r\nX-DUP: 2\r\n\r\n',
      'latin1',
    ),
  ),
} satisfies Record<string, SieveMessage>;

const settings: RunOptions = {
  envelope: { from: 'ann@a.example', to: ['bob+work@b.example'], parts: { notify: ['FAILURE'], auth: ['ann'] } },
  environment: {
    name: 'Starling',
    location: 'MDA',
    phase: 'during',
    'remote-ip': '192.0.2.25',
    'vnd.starling.spam-percent': '80',
    'vnd.starling.virus-score': '1',
  },
  host: {
    isInList: async (list, values) => list === 'friends' && values.some((value) => value.toLowerCase() === 'ann@a.example'),
    isListName: async (list) => list === 'friends',
  },
};

function describeAction(action: SieveAction): string {
  if (action.kind === 'fileinto')
    return `fileinto ${action.mailbox}${action.flags?.length ? ` (${action.flags.join(' ')})` : ''}`;
  if (action.kind === 'redirect') return `redirect ${action.address}`;
  if (action.kind === 'reject') return `reject ${action.reason}`;
  return action.kind;
}

function describeOutcome({ actions, keepsImplicitly }: SieveOutcome): string {
  const decided = actions.map(describeAction);
  return [...decided, ...(keepsImplicitly ? ['keep'] : [])].join(' + ') || 'nothing';
}

type Row = [script: string, outcome: string];

const rows: Record<keyof typeof messages, Row[]> = {
  plain: [
    ['', 'keep'],
    ['if header :contains "subject" "lunch" { fileinto "Food"; }', 'fileinto Food'],
    ['if header :contains "subject" "dinner" { fileinto "Food"; }', 'keep'],
    [
      'if header :contains "subject" "dinner" { discard; } elsif header :contains "subject" "noon" { fileinto "Noon"; } else { keep; }',
      'fileinto Noon',
    ],
    ['if header :is "subject" "lunch at noon" { discard; } else { fileinto "Other"; }', 'fileinto Other'],
    [`if header :matches "subject" "lunch at *?" { fileinto "At \${1}"; }`, 'fileinto At noon'],
    [`if header :matches "subject" "* at *\\\\?" { fileinto "\${2}/\${1}"; }`, 'fileinto noon/Lunch'],
    [`if header :matches "subject" "L????*" { fileinto "\${1}\${2}\${3}\${4}|\${5}"; }`, 'fileinto unch| at noon?'],
    ['if header :matches "subject" "lunch" { discard; }', 'keep'],
    ['if address :is "from" "ann@a.example" { fileinto "Ann"; stop; } discard;', 'fileinto Ann'],
    ['if address :comparator "i;octet" :is "from" "ann@a.example" { fileinto "Ann"; stop; } discard;', 'discard'],
    ['if address :domain ["from", "to", "cc"] "d.example" { fileinto "D"; }', 'fileinto D'],
    ['if address :localpart "cc" "d. dan" { discard; }', 'keep'],
    [`if address :matches ["to", "cc"] "*@*.example" { fileinto "\${1} of \${2}"; }`, 'fileinto bob+work of b'],
    ['if address :user "to" "bob" { fileinto "Bob"; }', 'fileinto Bob'],
    [`if address :detail :matches "to" "*" { fileinto "INBOX/\${1}"; }`, 'fileinto INBOX/work'],
    ['if address :count "ge" :comparator "i;ascii-numeric" ["to", "cc"] "3" { fileinto "Many"; }', 'fileinto Many'],
    ['if address :count "gt" :comparator "i;ascii-numeric" "to" "2" { fileinto "Many"; }', 'keep'],
    ['if address :list "from" "friends" { fileinto "Friends"; }', 'fileinto Friends'],
    ['if address :list ["to", "cc"] "friends" { fileinto "Friends"; }', 'keep'],
    ['if allof (valid_ext_list "friends", not valid_ext_list "foes") { fileinto "Lists"; }', 'fileinto Lists'],
    ['if envelope :is "from" "ann@a.example" { fileinto "Env"; }', 'fileinto Env'],
    ['if envelope :detail "to" "work" { fileinto "Work"; }', 'fileinto Work'],
    [`if envelope :matches :localpart "to" "*+*" { fileinto "\${1}.\${2}"; }`, 'fileinto bob.work'],
    ['if envelope :domain "to" ["a.example", "b.example"] { fileinto "Ours"; }', 'fileinto Ours'],
    ['if envelope "notify" "failure" { fileinto "Notified"; }', 'fileinto Notified'],
    ['if envelope "auth" "ann" { fileinto "Submitted"; }', 'fileinto Submitted'],
    ['if exists ["from", "date", "x-priority"] { fileinto "All"; }', 'fileinto All'],
    ['if not exists ["from", "reply-to"] { fileinto "Not all"; }', 'fileinto Not all'],
    ['if size :over 1M { discard; } elsif size :under 1K { fileinto "Small"; }', 'fileinto Small'],
    ['if header :value "le" :comparator "i;ascii-numeric" "x-priority" "2" { fileinto "Urgent" ; }', 'fileinto Urgent'],
    ['if header :value "gt" :comparator "i;ascii-numeric" "x-priority" ["1", "2"] { discard; }', 'keep'],
    ['if header :count "eq" :comparator "i;ascii-numeric" "received" "2" { fileinto "Two hops"; }', 'fileinto Two hops'],
    ['if header :index 2 :contains "received" "from home" { fileinto "From home"; }', 'fileinto From home'],
    ['if header :index 1 :contains "received" "from home" { discard; }', 'keep'],
    [`if header :index 1 :last :matches "received" "from * by *;*" { fileinto "\${1}>\${2}"; }`, 'fileinto home>a.example'],
    ['if date :zone "+0000" :is "date" "hour" "06" { fileinto "Six"; }', 'fileinto Six'],
    [`if date :originalzone :matches "date" "iso8601" "*T*" { fileinto "\${1} \${2}"; }`, 'fileinto 2026-11-23 08:59:57+02:00'],
    ['if date :index 2 :zone "+0000" :is "received" "second" "58" { fileinto "58"; }', 'fileinto 58'],
    ['if date :value "ge" "date" "julian" "61367" { fileinto "Julian"; }', 'fileinto Julian'],
    [`if currentdate :matches "std11" "*, *" { fileinto "\${1}"; }`, 'fileinto Mon'],
    [
      'if allof (currentdate :value "ge" "date" "2026-11-01", currentdate :value "lt" "date" "2026-12-01") { fileinto "November"; }',
      'fileinto November',
    ],
    ['if anyof (currentdate "weekday" ["0", "6"], currentdate :value "ge" "hour" "17") { redirect "pager@b.example"; }', 'keep'],
    [`if header :regex "message-id" "^<([0-9]+)@([a-z.]+)>$" { fileinto "\${2}/\${1}"; }`, 'fileinto a.example/1'],
    [`if header :regex "subject" "(dinner|lunch) at (noon|night)" { fileinto "\${1} \${2}"; }`, 'fileinto Lunch noon'],
    ['if not header :regex :comparator "i;octet" "subject" "lunch" { fileinto "Case"; }', 'fileinto Case'],
    ['if body :contains "hello" { fileinto "Hello"; }', 'fileinto Hello'],
    [`if body :raw :matches "hello*!??" { fileinto "Exactly <\${1}>"; }`, 'fileinto Exactly <>'],
    [`if environment :matches "remote-ip" "192.0.2.*" { fileinto "Net \${1}"; }`, 'fileinto Net 25'],
    ['if environment "location" "MTA" { discard; }', 'keep'],
    ['if spamtest :value "ge" :comparator "i;ascii-numeric" "8" { fileinto "Spam"; }', 'fileinto Spam'],
    ['if spamtest :percent :value "gt" :comparator "i;ascii-numeric" "80" { discard; }', 'keep'],
    ['if virustest :value "gt" :comparator "i;ascii-numeric" "1" { discard; }', 'keep'],
    [`set "who" "ann"; if address :localpart :is "from" "\${who}" { fileinto "\${who}"; }`, 'fileinto ann'],
    [`set :quotewildcard "s" "noon?"; if header :matches "subject" "*\${s}" { fileinto "<\${1}>"; }`, 'fileinto <Lunch at >'],
    [`set "f" "x-prio"; if header :contains "\${f}rity" "highest" { fileinto "P"; }`, 'fileinto P'],
    [`if string :matches "a.b.c" "*.*" { fileinto "\${1}|\${2}"; }`, 'fileinto a|b.c'],
    ['if string :count "eq" ["a", "", "b"] "2" { fileinto "Two"; }', 'fileinto Two'],
    ['addflag "\\\\Seen"; if hasflag :contains "seen" { fileinto :flags "\\\\Flagged" "F"; }', 'fileinto F (\\Flagged)'],
    ['addheader "X-Seen" "yes"; if header "x-seen" "YES" { fileinto "Edited"; }', 'fileinto Edited'],
    ['deleteheader "subject"; if exists "subject" { discard; }', 'keep'],
    ['deleteheader :index 1 "received"; if header :count "eq" "received" "2" { fileinto "Kept"; }', 'fileinto Kept'],
    ['deleteheader :matches "x-priority" "1*"; if not exists "x-priority" { fileinto "Gone"; }', 'fileinto Gone'],
    ['if header :contains "subject" "lunch" { fileinto :copy "Copy"; }', 'fileinto Copy + keep'],
    [`if anyof (false, header :matches "subject" "*") { fileinto "\${0}"; }`, 'fileinto Lunch at noon?'],
    [`if allof (header :matches "subject" "Lunch *", header :matches "x-priority" "* *") { fileinto "\${1}"; }`, 'fileinto 1'],
    [
      `if allof (header :matches "subject" "Lunch *", header :matches "x-priority" "9*") { discard; } fileinto "\${1}";`,
      'fileinto at noon?',
    ],
    [`if header :matches ["x-none", "subject"] ["x*", "*at*"] { fileinto "<\${2}>"; }`, 'fileinto < noon?>'],
  ],
  list: [
    [`if header :matches "List-ID" "*<*.*" { fileinto "Lists/\${2}"; stop; }`, 'fileinto Lists/acme-users'],
    [`if header :matches "subject" "[*] *" { fileinto "\${1}: \${2}"; }`, 'fileinto acme-users: [fwd] version 1.0 is out'],
    [
      `if header :regex "subject" "^\\\\[(.*)\\\\] (.*)$" { fileinto "\${1}: \${2}"; }`,
      'fileinto acme-users] [fwd: version 1.0 is out',
    ],
    [`if header :regex "list-id" "<([a-z-]+)[.@]" { fileinto "\${1}"; }`, 'fileinto acme-users'],
    ['if exists "list-unsubscribe" { fileinto "Bulk"; }', 'fileinto Bulk'],
    ['if header "precedence" ["junk", "bulk", "list"] { fileinto "Bulk"; }', 'fileinto Bulk'],
    [`if address :domain :matches "from" "*.acme.example" { fileinto "\${1}"; }`, 'fileinto lists'],
    ['if address :contains "from" "via" { discard; }', 'keep'],
    ['if date :zone "-0800" "date" "weekday" "0" { fileinto "Weekend"; }', 'fileinto Weekend'],
    ['if date "date" "weekday" "1" { fileinto "Monday in UTC"; }', 'fileinto Monday in UTC'],
    [`if date :zone "+0100" :matches "date" "std11" "*" { fileinto "\${1}"; }`, 'fileinto Mon, 23 Nov 2026 08:30:00 +0100'],
    ['if header :value "lt" "subject" "[b" { fileinto "Before"; }', 'fileinto Before'],
  ],
  umlauts: [
    ['if header :is "subject" "Grüße aus Köln" { fileinto "Köln"; }', 'fileinto Köln'],
    ['if header :contains "subject" "KÖLN" { discard; }', 'keep'],
    ['if header :contains :comparator "i;unicode-casemap" "subject" "KÖLN" { fileinto "Köln"; }', 'fileinto Köln'],
    [
      `if header :matches :comparator "i;unicode-casemap" "subject" "gr??e aus *" { fileinto "\${1}\${2} \${3}"; }`,
      'fileinto üß Köln',
    ],
    [`if header :matches "subject" "* aus *" { fileinto "\${2}/\${1}"; }`, 'fileinto Köln/Grüße'],
    ['if header :contains "from" "Müller" { fileinto "Müller"; }', 'fileinto Müller'],
    ['if header :contains "to" "André" { fileinto "André"; }', 'fileinto André'],
    ['if address :domain "from" "münchen.example" { fileinto "M"; }', 'fileinto M'],
    ['if address :contains "from" "jörg" { discard; }', 'keep'],
    ['if body :contains "Schöne Grüße" { fileinto "Body"; }', 'fileinto Body'],
    ['if body :raw :contains "Sch=F6ne" { fileinto "Raw"; }', 'fileinto Raw'],
    ['if body :text :contains :comparator "i;unicode-casemap" "SCHÖNE" { fileinto "Body"; }', 'fileinto Body'],
    ['if header :regex "subject" "gr..e" { fileinto "Dots"; }', 'fileinto Dots'],
    ['if header :value "eq" :comparator "i;unicode-casemap" "subject" "GRÜßE AUS KÖLN" { fileinto "Equal"; }', 'fileinto Equal'],
    ['addheader "X-Where" "Köln"; if header :is "x-where" "Köln" { fileinto "Added"; }', 'fileinto Added'],
  ],
  parts: [
    ['if header :mime :anychild :contenttype "Content-Type" "application/pdf" { fileinto "PDF"; }', 'fileinto PDF'],
    ['if header :mime :contenttype "Content-Type" "application/pdf" { discard; }', 'keep'],
    ['if header :mime :type "Content-Type" "multipart" { fileinto "Multipart"; }', 'fileinto Multipart'],
    [
      `if header :mime :anychild :param "filename" :matches "Content-Disposition" "*.exe" { fileinto "Bad \${1}"; }`,
      'fileinto Bad résumé',
    ],
    [
      'if header :mime :anychild :param ["name", "filename"] :contains ["Content-Type", "Content-Disposition"] "invoice" { fileinto "Invoices"; }',
      'fileinto Invoices',
    ],
    ['if exists :mime :anychild "content-transfer-encoding" { fileinto "Encoded"; }', 'fileinto Encoded'],
    ['if header :mime :anychild :count "eq" "content-type" "6" { fileinto "Six"; }', 'fileinto Six'],
    ['if body :content "application/pdf" :contains "%PDF-" { fileinto "Really PDF"; }', 'fileinto Really PDF'],
    ['if body :content "application" :is "MZ" { fileinto "Program"; }', 'fileinto Program'],
    ['if body :text :contains "100 EUR" { fileinto "Paid"; }', 'fileinto Paid'],
    ['if body :content "text/html" :contains "<b>100</b>" { fileinto "Markup"; }', 'fileinto Markup'],
    ['if body :content "text/plain" :contains "<b>" { discard; }', 'keep'],
    ['if body :content "image" :contains "" { discard; }', 'keep'],
    ['foreverypart { if header :mime :subtype "content-type" "pdf" { fileinto "Found"; break; } }', 'fileinto Found'],
    [
      `foreverypart { if allof (header :mime :type "content-disposition" "attachment", header :mime :param "filename" :matches "content-disposition" "*.*") { fileinto "\${2}"; } }`,
      'fileinto pdf + fileinto exe',
    ],
    [
      `foreverypart { if header :mime :contenttype "content-type" "multipart/alternative" { foreverypart { if header :mime :subtype :matches "content-type" "*" { fileinto "\${1}"; } } } }`,
      'fileinto plain + fileinto html',
    ],
    [
      `if header :matches "subject" "*invoice ????-*" { fileinto "Invoices/\${2}\${3}\${4}\${5}/\${6}"; }`,
      'fileinto Invoices/2026/1177',
    ],
  ],
  bounce: [
    ['if header :mime :param "report-type" "content-type" "delivery-status" { fileinto "Bounces"; }', 'fileinto Bounces'],
    ['if header :mime :anychild "subject" "the original" { fileinto "Mine"; }', 'fileinto Mine'],
    ['if header "subject" "the original" { discard; }', 'keep'],
    ['if address :is "return-path" "" { fileinto "Empty"; }', 'fileinto Empty'],
    ['if not header "auto-submitted" "no" { fileinto "Automatic"; }', 'fileinto Automatic'],
    ['deleteheader "auto-submitted"; if exists "auto-submitted" { fileinto "Still there"; }', 'fileinto Still there'],
    ['if body :content "message/rfc822" :contains "the original" { fileinto "Within"; }', 'fileinto Within'],
    ['if body :content "message/rfc822" :contains "hi" { discard; }', 'keep'],
    ['if body :content "message/delivery-status" :contains "action: failed" { fileinto "Failed"; }', 'fileinto Failed'],
    ['if body :content "text" :is "hi" { fileinto "Nested text"; }', 'fileinto Nested text'],
    ['if address :localpart "from" "mailer-daemon" { discard; }', 'discard'],
  ],
  spam: [
    ['if header :contains "subject" "money fast" { discard; }', 'discard'],
    ['if header :comparator "i;octet" :contains "subject" "money fast" { discard; }', 'keep'],
    ['if header :is "subject" "SECOND subject" { fileinto "Any of them"; }', 'fileinto Any of them'],
    ['if header :count "gt" "subject" "1" { reject "Two subjects"; }', 'reject Two subjects'],
    ['if header :value "ge" :comparator "i;ascii-numeric" "x-spam-score" "10" { fileinto "Junk"; }', 'fileinto Junk'],
    ['if header :value "ge" "x-spam-score" "2" { discard; } else { fileinto "As text"; }', 'fileinto As text'],
    ['if address :contains "from" "viagra" { discard; } else { fileinto "Name only"; }', 'fileinto Name only'],
    ['if address :contains "to" "" { discard; } else { fileinto "Nobody"; }', 'fileinto Nobody'],
    ['if date :contains "date" "year" "" { discard; } else { fileinto "No date"; }', 'fileinto No date'],
    ['if header :regex "subject" "!{3}$" { fileinto "Loud"; }', 'fileinto Loud'],
    ['if header :regex "subject" "^[[:upper:][:space:]!]+$" { fileinto "Loud"; }', 'fileinto Loud'],
    ['if header :regex :comparator "i;octet" "subject" "^[[:upper:][:space:]!]+$" { fileinto "Loud"; }', 'fileinto Loud'],
  ],
  broken: [
    ['if address :is "from" "nobody at all" { fileinto "As it is"; }', 'fileinto As it is'],
    ['if address :localpart :contains "from" "" { discard; }', 'keep'],
    ['if address :is "to" "c@d.example" { fileinto "Read on"; }', 'fileinto Read on'],
    ['if address :contains "bcc" "" { discard; }', 'keep'],
    ['if header :is "bcc" "" { fileinto "Empty"; }', 'fileinto Empty'],
    ['if header :matches "subject" "*folded*" { fileinto "Unfolded"; }', 'fileinto Unfolded'],
    ['if header :count "eq" "x-dup" "2" { fileinto "Both"; }', 'fileinto Both'],
    ['if header :index 2 "x-dup" "2" { fileinto "Second"; }', 'fileinto Second'],
    ['if exists "No colon here" { discard; }', 'keep'],
    ['if body :raw :is "" { fileinto "No text"; }', 'fileinto No text'],
  ],
};

for (const [name, cases] of Object.entries(rows)) {
  describe(`over the message '${name}'`, () => {
    it.each(cases)('%s → %s', async (script, outcome) => {
      const message = messages[name as keyof typeof messages];
      expect(describeOutcome(await runScript(`${requireAll}\n${script}`, { ...settings, message }))).toBe(outcome);
    });
  });
}

it('runs one compiled script for many messages at once', async () => {
  const script = `${requireAll} if header :matches "subject" "*" { fileinto "\${1}"; }`;
  const outcomes = await Promise.all(
    Array.from({ length: 50 }, (_, i) => runScript(script, { message: messageOf(`Subject: ${i}\n\n`) })),
  );
  expect(outcomes.map(describeOutcome)).toEqual(outcomes.map((_, i) => `fileinto ${i}`));
});
