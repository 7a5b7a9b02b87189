/** Scripts and messages for which both engines must decide the same. */
import type { Difference } from './test-pigeonhole-scripts.js';

export const decisionMessages: Readonly<Record<string, string>> = {
  plain: `Received: from a.example by b.example; Mon, 1 Jan 2024 00:00:00 +0000
From: Ann Archer <ann@a.example>
To: bob@b.example, "Carol, C." <carol+lists@c.example>
Cc: Dan <dan@d.example>
Subject: Lunch at noon
Date: Mon, 15 Jan 2024 12:00:00 +0100
Message-ID: <1@a.example>
X-Priority: 3
X-Flag: first
X-Flag: second

Hello Bob!
`,
  multipart: `From: =?utf-8?q?J=C3=B6rg?= <joerg@a.example>
To: bob@b.example
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= [list] *star*
Date: Tue, 16 Jan 2024 09:30:00 +0000
Message-ID: <2@a.example>
List-Id: <list.a.example>
X-Priority: 12
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=_b"

--=_b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Gr=C3=BC=C3=9Fe
--=_b
Content-Type: multipart/alternative; boundary="=_c"

--=_c
Content-Type: text/plain

inner
--=_c
Content-Type: text/html

<p>inner</p>
--=_c--

--=_b
Content-Type: application/octet-stream; name="a.exe"
Content-Disposition: attachment; filename="a.exe"
Content-Transfer-Encoding: base64

AAAA
--=_b--
`,
  bare: `From: x@y.example

`,
};

export const decisionScripts: readonly string[] = [
  '',
  'keep;',
  'discard;',
  'discard; keep;',
  'keep; discard;',
  'stop; discard;',
  'if true { stop; } discard;',
  'require "fileinto"; fileinto "a";',
  'require "fileinto"; fileinto "a"; fileinto "b"; fileinto "a";',
  'require "fileinto"; fileinto "a"; keep;',
  'require ["fileinto", "copy"]; fileinto :copy "a";',
  'require ["fileinto", "mailbox"]; fileinto :create "a/b";',
  'redirect "x@y.example";',
  'redirect "X <x@y.example>"; redirect "x@Y.EXAMPLE"; redirect "X@y.example";',
  'require "copy"; redirect :copy "x@y.example";',
  'redirect "x@y.example"; keep;',
  'require "reject"; reject "no thanks";',
  'require "reject"; keep; reject "no";',
  'require "reject"; reject "no"; keep;',
  'require "reject"; reject "no"; reject "no";',
  'require ["reject", "vacation"]; vacation "away"; reject "no";',
  'require ["reject", "fileinto"]; reject "no"; fileinto "a";',
  'require "reject"; reject "no"; redirect "x@y.example";',
  'require "vacation"; vacation "away";',
  'require "vacation"; vacation :days 3 :subject "Not here" "away";',
  'require "vacation-seconds"; vacation :seconds 1800 "away"; discard;',
  'require ["vacation", "vacation-seconds"]; vacation "a"; vacation "b";',
  'require "imap4flags"; addflag "\\\\Seen"; addflag ["x", "\\\\SEEN y"];',
  'require "imap4flags"; setflag ["a", "b", "c"]; removeflag ["B", "d"]; keep;',
  'require ["imap4flags", "fileinto"]; setflag "a"; fileinto "x"; addflag "b"; fileinto "y"; keep :flags "z";',
  'require ["imap4flags", "fileinto"]; addflag "a"; fileinto :flags "" "x";',
  'require "imap4flags"; addflag ["\\\\Answered", "\\\\nonsense"];',
  `require ["imap4flags", "variables", "fileinto"]; setflag "v" ["a", "b"]; addflag "v" "A c"; removeflag "v" "b"; fileinto :flags "\${v}" "x";`,
  `require ["variables", "fileinto"]; set "a" "x"; set "b" "\${a}y\${A}"; fileinto "\${b}\${unset}z";`,
  `require ["variables", "fileinto"]; set :upperfirst :lower "a" "hELLO"; set :length "n" "\${a}"; fileinto "\${a} \${n}";`,
  `require ["variables", "fileinto"]; set :quotewildcard "a" "a*b?c\\\\d"; fileinto "\${a}";`,
  `require ["variables", "fileinto"]; set :lowerfirst :upper "a" "hello"; fileinto "\${a}";`,
  `require ["variables", "fileinto"]; set "a" "$"; fileinto "\${a}{a} \${} \${1x} \${-} \${a";`,
  `require ["variables", "fileinto"]; if header :matches "subject" "* at *" { fileinto "\${0}|\${1}|\${2}|\${3}"; } else { fileinto "none \${1}"; }`,
  `require ["variables", "fileinto"]; if header :matches "from" "*<*@*>" { if header :matches "to" "none*" {} fileinto "\${2} \${3}"; }`,
  `require ["encoded-character", "fileinto"]; fileinto "a\${hex:24 40}b\${unicode:e4 20AC}c\${hex:C3}\${hex:A9}\${hex:41 }\${hex:444}";`,
  `require ["encoded-character", "variables", "fileinto"]; set "a" "x"; fileinto "\${hex:24}{a}";`,
  'if header :is "subject" "lunch AT noon" { discard; }',
  'if header :is :comparator "i;octet" "subject" "lunch AT noon" { discard; }',
  'if header :contains ["x-flag", "subject"] ["cond", "none"] { discard; }',
  'if header :contains "x-none" "" { discard; }',
  'if header :contains "subject" "" { discard; }',
  'if header :matches "subject" "Gr\u00fc\u00dfe*\\\\*star\\\\*" { discard; }',
  'if header :matches "subject" "L?nch*" { discard; }',
  'if exists ["from", "list-id"] { discard; }',
  'if not exists "list-id" { discard; }',
  'if address :domain "from" "a.example" { discard; }',
  'if address :localpart ["to", "cc"] ["carol+lists", "none"] { discard; }',
  'if address :all :contains "to" "c.example" { discard; }',
  'require "subaddress"; if address :detail "to" "lists" { discard; }',
  'require "subaddress"; if address :user "to" "carol" { discard; }',
  'require "envelope"; if envelope :all "from" "ann@a.example" { discard; }',
  'require "envelope"; if envelope :domain "to" "B.example" { discard; }',
  'if size :over 400 { discard; }',
  'if size :under 20 { discard; }',
  'if anyof (false, allof (true, not false)) { discard; }',
  'if false { discard; } elsif header :contains "from" "ann" { keep; } else { discard; }',
  'require ["relational", "comparator-i;ascii-numeric"]; if header :value "gt" :comparator "i;ascii-numeric" "x-priority" "5" { discard; }',
  'require "relational"; if header :value "lt" "x-priority" "2" { discard; }',
  'require ["relational", "comparator-i;ascii-numeric"]; if header :count "ge" :comparator "i;ascii-numeric" "x-flag" "2" { discard; }',
  'require ["relational", "comparator-i;ascii-numeric"]; if address :count "eq" :comparator "i;ascii-numeric" ["to", "cc"] "3" { discard; }',
  'require "date"; if date :originalzone "date" "hour" "12" { discard; }',
  `require ["date", "variables", "fileinto"]; if date :zone "+0200" :matches "date" "iso8601" "*" { fileinto "\${1}"; }`,
  `require ["date", "variables", "fileinto"]; if date :zone "+0000" :matches "date" "std11" "*" { fileinto "\${1}"; }`,
  'require ["date", "relational"]; if date :value "ge" "date" "julian" "60325" { discard; }',
  'require "index"; if header :index 1 :is "x-flag" "first" { discard; }',
  'require "index"; if header :index 1 :last :is "x-flag" "second" { discard; }',
  'require "body"; if body :raw :contains "Bob" { discard; }',
  'require "body"; if body :text :contains "Gr\u00fc\u00dfe" { discard; }',
  'require "body"; if body :content "text/html" :contains "<p>" { discard; }',
  `require ["regex", "variables", "fileinto"]; if header :regex "subject" "^([a-z]+) (at|in)" { fileinto "\${1}-\${2}"; }`,
  'require "mime"; if header :mime :anychild :contenttype "content-type" "text/html" { discard; }',
  'require "mime"; if header :mime :type "content-type" "multipart" { discard; }',
  'require "mime"; if header :mime :anychild :param "filename" "content-disposition" "A.EXE" { discard; }',
  `require ["foreverypart", "variables", "fileinto"]; foreverypart { set "a" "\${a}x"; } fileinto "n\${a}";`,
  `require ["foreverypart", "variables", "fileinto"]; foreverypart { foreverypart { set "a" "\${a}x"; } } fileinto "n\${a}";`,
  `require ["foreverypart", "variables", "fileinto"]; foreverypart :name "o" { set "b" "\${b}y"; foreverypart { set "a" "\${a}x"; break :name "o"; } } fileinto "n\${a}\${b}";`,
  `require ["foreverypart", "mime", "variables", "fileinto"]; foreverypart { if header :mime :type "content-type" "text" { set "a" "\${a}t"; } else { set "a" "\${a}-"; } } fileinto "n\${a}";`,
  `require ["foreverypart", "mime", "extracttext", "variables", "fileinto"]; foreverypart { if header :mime :type "content-type" "text" { extracttext :first 2 :upper "t"; set "a" "\${a}[\${t}]"; } } fileinto "n\${a}";`,
  'require ["foreverypart", "fileinto"]; foreverypart { stop; } fileinto "a";',
  'require "duplicate"; if duplicate { discard; }',
  'require "enotify"; notify :importance "1" :message "m" "mailto:x@y.example%2Cz@y.example?subject=s";',
  'require "enotify"; notify "mailto:x@y.example?cc=v%40y.example"; discard;',
  'require "enotify"; if notify_method_capability "mailto:x@y.example" "online" "maybe" { discard; }',
  'require "enotify"; if valid_notify_method ["mailto:x@y.example", "none:x"] { discard; }',
  `require ["enotify", "variables", "fileinto"]; set :encodeurl "a" "a b/\u00e4~!"; fileinto "\${a}";`,
  'require "ihave"; if ihave "vnd.nobody.knows" { unknown; } else { discard; }',
  'require "ihave"; if ihave "fileinto" { fileinto "a"; }',
  'require "ihave"; error "wrong";',
  'require ["ihave", "fileinto"]; fileinto "a"; error "wrong";',
  `require ["include", "variables", "fileinto"]; global "a"; set "a" "x"; fileinto "\${global.a}"; return; discard;`,
  'require "editheader"; addheader "X-Added" "yes"; if header "x-added" "yes" { discard; }',
  'require "editheader"; deleteheader "X-Flag"; if exists "x-flag" { discard; }',
  'require "editheader"; deleteheader :index 1 :last "X-Flag"; if header "x-flag" "second" { discard; }',
  'require "editheader"; deleteheader :matches "X-Flag" "f*"; if header "x-flag" "first" { discard; }',
  `require ["variables", "fileinto"]; set "a" "\${1}"; if string :matches "a.b.c" "*.*" { fileinto "\${1}+\${2}"; }`,
  'require ["imap4flags", "fileinto"]; addflag ["a", "B"]; if hasflag :is "b" { fileinto "x"; }',
];

/** `script` decides otherwise than Pigeonhole. */
export const decidedOtherwise: readonly Difference[] = [
  {
    script: 'require "vacation"; vacation :days 0 "away";',
    reason: 'RFC 5230 4.1: the shortest time is greater than zero; Pigeonhole takes the shortest of RFC 6131 for both, here none',
  },
  {
    script: `require ["foreverypart", "mime", "extracttext", "variables", "fileinto"]; foreverypart { if header :mime :type "content-type" "text" { extracttext :first 4 "t"; set "a" "\${a}[\${t}]"; } } fileinto "n\${a}";`,
    reason: 'RFC 5703 7: `:first` counts characters; Pigeonhole counts bytes',
  },
  {
    script: `require ["variables", "fileinto"]; set :upper "a" "\u00e9"; fileinto "\${a}";`,
    reason: 'RFC 5229 4.1 speaks of letters; Pigeonhole changes those of ASCII only',
  },
];
