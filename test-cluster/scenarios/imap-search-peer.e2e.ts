/**
 * SEARCH, SORT and THREAD beside Dovecot: the same mailbox and the same commands on both, and the same answers. What is left out is what both may do differently:
 * `\Recent`, messages without a Date, letters with marks (Dovecot finds `é` by `e`), headers of MIME parts, and the order of the threads of REFS.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Dovecot } from '../harness/dovecot.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { isAllThere } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';

const able = isAllThere(Dovecot.isHere ? [] : ['dovecot, as root']);
const messageCount = 600;
const commandCount = 300;

const words = [
  'lunch',
  'budget',
  'report',
  'Quarter',
  'møller',
  'meeting',
  'ØRGER',
  'straße',
  'alpha',
  'Beta',
  'gamma',
  '42',
  'Привет',
  'zebra',
];
const people = ['alice', 'Bob', 'carol', 'dave', 'eve', 'Frank'];
const names = ['Alice Example', 'bob', 'Zoe', '"Quoted, Name"', '=?iso-8859-1?Q?J=F8rgen?=', ''];
const prefixes = ['', '', '', 'Re: ', 'RE: ', 'Fwd: ', 'FW: ', '[list] ', 'Re: [list] ', '[list] Re: ', 'Re[2]: ', 'AW: '];
const zones = ['+0000', '+0200', '-0500', '+1300', '-0800', 'GMT', 'EST'];
const flagSets = ['', '\\Seen', '\\Seen \\Answered', '\\Flagged', '\\Draft \\Seen', '\\Deleted', '$Forwarded \\Seen', 'custom'];
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const sortKeys = ['ARRIVAL', 'CC', 'DATE', 'FROM', 'SIZE', 'SUBJECT', 'TO', 'DISPLAYFROM', 'DISPLAYTO'];
const algorithms = ['REFERENCES', 'ORDEREDSUBJECT', 'REFS'];

/** The same choices at every run. */
class Choices {
  private state = 1;

  below(end: number): number {
    this.state = (Math.imul(this.state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.state / 2 ** 32) * end);
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  time(year: number): string {
    const [day, clock] = [this.below(28) + 1, [24, 60, 60].map((end) => String(this.below(end)).padStart(2, '0')).join(':')];
    return `${String(day).padStart(2, '0')} ${this.of(months)} ${year} ${clock}`;
  }

  date(): string {
    return `${this.below(28) + 1}-${this.of(months)}-${this.of([2023, 2024])}`;
  }
}

const encoded = (text: string) => (/[^\x00-\x7f]/.test(text) ? `=?utf-8?B?${Buffer.from(text).toString('base64')}?=` : text);

const addressOf = (choices: Choices) => {
  const name = choices.of(names);
  const address = `${choices.of(people)}${choices.below(4)}@${choices.of(['example.org', 'Example.COM', 'test.example'])}`;
  return name === '' ? address : `${name} <${address}>`;
};

function references(choices: Choices, before: readonly string[]): string[] {
  const known = before.slice(-60);
  const ids = Array.from({ length: 1 + choices.below(4) }, () =>
    choices.chance(85) ? choices.of(known) : `missing${choices.below(40)}@host`,
  ).map((id) => `<${choices.chance(10) ? id.replaceAll('"', '') : id}>`);
  return [
    ...(choices.chance(70) ? [`References: ${ids.join(choices.chance(50) ? ' ' : '\r\n ')}`] : []),
    ...(choices.chance(70) ? [`In-Reply-To: ${ids.at(-1)}`] : []),
  ];
}

function message(choices: Choices, number: number, before: string[]): { text: Buffer; append: string } {
  const id = number % 7 === 0 ? `"id${number}"@host` : `id${number}@host`;
  const lines: string[] = [];
  if (choices.chance(95)) lines.push(`Message-ID: <${before.length > 0 && choices.chance(2) ? choices.of(before) : id}>`);
  if (before.length > 3 && choices.chance(55)) lines.push(...references(choices, before));
  lines.push(`Date: ${choices.time(2023)} ${choices.of(zones)}`);
  if (choices.chance(98)) lines.push(`From: ${addressOf(choices)}`);
  if (choices.chance(85)) lines.push(`To: ${addressOf(choices)}${choices.chance(30) ? `, ${addressOf(choices)}` : ''}`);
  else if (choices.chance(50)) lines.push(`To: Team${choices.below(3)}: ${addressOf(choices)}, ${addressOf(choices)};`);
  if (choices.chance(30)) lines.push(`Cc: ${addressOf(choices)}`);
  const subject = `${choices.of(prefixes)}${choices.of(words)} ${choices.of(words)}${choices.chance(20) ? ' (fwd)' : ''}`;
  if (choices.chance(97)) lines.push(`Subject: ${encoded(subject)}`);
  if (choices.chance(30)) lines.push(`X-Mark: ${choices.of(['lunch', 'alpha', '42', 'zebra'])}`);
  const body = Array.from({ length: 1 + choices.below(30) }, () => choices.of(words)).join(' ');
  const isBase64 = choices.chance(30);
  lines.push('MIME-Version: 1.0', 'Content-Type: text/plain; charset=utf-8');
  lines.push(`Content-Transfer-Encoding: ${isBase64 ? 'base64' : '8bit'}`);
  before.push(id);
  const content = isBase64 ? Buffer.from(body).toString('base64').replace(/.{60}/g, '$&\r\n') : body;
  const text = Buffer.from(`${lines.join('\r\n')}\r\n\r\n${content}\r\n`);
  const internal = choices.time(2024).replace(' ', '-').replace(' ', '-');
  return { text, append: `APPEND INBOX (${choices.of(flagSets)}) "${internal} +0000" {${text.length}+}` };
}

function textArgument(text: string): string {
  return /^[\x20-\x7e]*$/.test(text) ? `"${text}"` : `{${Buffer.byteLength(text)}+}\r\n${text}`;
}

function word(choices: Choices): string {
  const whole = choices.of(words);
  return textArgument(
    choices.chance(30) ? whole.slice(0, 2 + choices.below(4)) : choices.chance(30) ? whole.toUpperCase() : whole,
  );
}

const range = (choices: Choices) => {
  const from = 1 + choices.below(messageCount - 310);
  return choices.chance(50) ? `${from}` : `${from}:${choices.chance(10) ? '*' : from + choices.below(300)}`;
};

function searchKey(choices: Choices, depth: number): string {
  const keys: (() => string)[] = [
    () => choices.of(['ANSWERED', 'SEEN', 'FLAGGED', 'DELETED', 'DRAFT', 'UNSEEN', 'UNANSWERED', 'UNDELETED', 'ALL']),
    () => `${choices.of(['KEYWORD', 'UNKEYWORD'])} custom`,
    () => `FROM ${textArgument(choices.of(['alice', 'bob1', 'example.org', 'jørgen', 'zoe', 'quoted', 'eve3@test', 'nobody']))}`,
    () => `TO ${choices.of(['team1', 'frank2@example.com', '"alice example"'])}`,
    () => `CC ${choices.of(['carol', '@test.example'])}`,
    () => `SUBJECT ${word(choices)}`,
    () => `${choices.of(['BODY', 'TEXT'])} ${word(choices)}`,
    () => `HEADER X-Mark ${choices.of(['""', 'lunch', 'ALPHA', '42'])}`,
    () => `HEADER Message-ID ${choices.of(['id10', '"<id20@host>"', '@host', '""'])}`,
    () => `HEADER References ${choices.of(['""', 'id3', 'missing1'])}`,
    () => `${choices.of(['SINCE', 'BEFORE', 'ON', 'SENTSINCE', 'SENTBEFORE', 'SENTON'])} ${choices.date()}`,
    () => `${choices.of(['LARGER', 'SMALLER'])} ${choices.below(2_000)}`,
    () => `${choices.of(['', 'UID '])}${range(choices)},${range(choices)}`,
  ];
  if (depth > 0)
    keys.push(
      () => `NOT ${searchKey(choices, depth - 1)}`,
      () => `OR ${searchKey(choices, depth - 1)} ${searchKey(choices, depth - 1)}`,
      () => `(${searchKey(choices, depth - 1)} ${searchKey(choices, depth - 1)})`,
    );
  return choices.of(keys)();
}

function command(choices: Choices): string {
  const program = `UTF-8 ${searchKey(choices, 2)}${choices.chance(50) ? ` ${searchKey(choices, 2)}` : ''}`;
  const uid = choices.chance(30) ? 'UID ' : '';
  const returns = choices.of(['', '', 'RETURN () ', 'RETURN (MIN) ', 'RETURN (MAX COUNT) ', 'RETURN (MIN MAX ALL COUNT) ']);
  const kind = choices.below(10);
  if (kind < 6) return `${uid}SEARCH ${choices.chance(20) ? 'RETURN (PARTIAL 5:20) ' : returns}CHARSET ${program}`;
  if (kind > 7) return `${uid}THREAD ${choices.of(algorithms)} ${program}`;
  const keys = [...new Set(Array.from({ length: 1 + choices.below(3) }, () => choices.of(sortKeys)))];
  return `${uid}SORT ${returns}(${keys.map((key) => `${choices.chance(40) ? 'REVERSE ' : ''}${key}`).join(' ')}) ${program}`;
}

/** The threads of a response, each with its brackets. */
function threadsOf(line: string): string[] {
  const threads: string[] = [];
  let depth = 0;
  let from = 0;
  for (let i = 0; i < line.length; i++) {
    if (line[i] === '(' && depth++ === 0) from = i;
    else if (line[i] === ')' && --depth === 0) threads.push(line.slice(from, i + 1));
  }
  return threads;
}

/** The data of the answer, in a form in which both say the same. */
function answerOf(bytes: Buffer, text: string): string {
  const lines = bytes.toString('latin1').split('\r\n');
  const line = lines.find((one) => /^\* (SEARCH|ESEARCH|SORT|THREAD)/.test(one)) ?? '';
  return text.includes('THREAD REFS') ? threadsOf(line).sort().join('') : line.trimEnd();
}

describe.skipIf(!able)('the same mailbox here and in Dovecot', () => {
  let node: NodeProcess;
  let dovecot: Dovecot;
  let both: [ours: ImapDialog, theirs: ImapDialog];
  const choices = new Choices();

  beforeAll(async () => {
    [node, dovecot] = await Promise.all([NodeProcess.start({ settings: '[log]\nlevel = "warn"\n' }), Dovecot.start()]);
    const user = 'alice@example.test';
    both = [
      await ImapDialog.connect(node.port('imaps'), user, node.password),
      await ImapDialog.connect(dovecot.ports.imaps, user, dovecot.password),
    ];
    const ids: string[] = [];
    const messages = Array.from({ length: messageCount }, (_, i) => message(choices, i, ids));
    for (const dialog of both) {
      for (const { text, append } of messages) await dialog.command(`${append}\r\n${text.toString('utf8')}`);
      await dialog.command('SELECT INBOX');
      // UIDs with gaps.
      await dialog.command('UID STORE 17,33:35,599 +FLAGS.SILENT (\\Deleted)');
      await dialog.command('UID EXPUNGE 17,33:35,599');
    }
  });
  afterAll(async () => {
    for (const dialog of both ?? []) dialog.close();
    await Promise.all([node?.remove(), dovecot?.stop()]);
  });

  const compare = async (commands: readonly string[]) => {
    for (const text of commands) {
      const [ours, theirs] = await Promise.all(both.map(async (dialog) => answerOf(await dialog.command(text), text)));
      expect(ours, text).toBe(theirs);
    }
  };

  it('is sorted alike by each key', async () => {
    await compare(sortKeys.flatMap((key) => [`SORT (${key}) UTF-8 ALL`, `UID SORT (REVERSE ${key}) UTF-8 ALL`]));
  });

  it('has the same threads', async () => {
    const parts = ['ALL', 'UNSEEN', '1:300', 'FROM alice', 'UID 300:500 SEEN'];
    await compare(algorithms.flatMap((algorithm) => parts.map((part) => `THREAD ${algorithm} UTF-8 ${part}`)));
  });

  it('answers all kinds of programs alike', async () => {
    await compare(Array.from({ length: commandCount }, () => command(choices)));
  });
});
