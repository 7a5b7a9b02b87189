/** Operators' scripts at the end of a message, in sessions with a real receiver, store and settings: verdicts, and headers that they edit. */
import { afterEach, describe, expect, it } from 'vitest';
import { keysUnder, subspace } from '../../../store/keyspace.js';
import type { KvStore } from '../../../store/kv/index.js';
import { queueLeftovers } from '../testing/node.js';
import { type ScriptedNode, type ScriptedOptions, startScriptedNode } from '../testing/scripted-node.js';

const opened: ScriptedNode[] = [];
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
});

/** A node with one script, at DATA. */
async function start(body: string, more: Partial<ScriptedOptions> = {}): Promise<ScriptedNode> {
  const required =
    '"reject", "ereject", "variables", "envelope", "environment", "copy", "editheader", "body", "include", "relational", "foreverypart", "mime"';
  const sieve = { last: `require [${required}];\n${body}`.replaceAll('@{', '$' + '{') };
  const started = await startScriptedNode({ at: { data: "'last'" }, sieve, ...more });
  opened.push(started);
  return started;
}

const lines = (...all: string[]) => all.join('\r\n');
/** What was stored, from the client's first byte on. */
const fromClient = (stored: string) =>
  stored.slice(/\r\n(?![ \t])/.exec(stored.slice(stored.indexOf('Received:')))!.index + stored.indexOf('Received:') + 2);

async function count(kv: KvStore, what: 'upload' | 'link' | 'head'): Promise<number> {
  const { begin, end } = keysUnder(subspace.blob, what);
  return (await kv.read((reads) => reads.getRange(begin, end))).length;
}

describe('a script at the end of a message', () => {
  const verdicts = `
    if header :contains "subject" "viagra" { reject "No pills"; }
    elsif header :is "x-later" "yes" { ereject "451 4.7.1 Not today"; }
    elsif header :contains "subject" "junk" { discard; }
    elsif body :contains "elsewhere" { redirect "bob@example.test"; }
    elsif body :contains "copy" { redirect :copy "bob@example.test"; }
    elsif body :contains "lost" { redirect "nobody@example.test"; }
    elsif size :over 2K { reject "552 5.3.4 Short letters only"; }
    elsif allof(envelope "from" "a@c.test", environment "vnd.starling.rcpt_count" "2") { reject "Not to both"; }`;

  it('refuses, throws away, and sends to others instead or besides', async () => {
    const { talk, node, alice, bob, accepted } = await start(verdicts);
    const dialog = await talk();
    const send = (subject: string, text = '') =>
      dialog.send('a@b.test', 'alice@example.test', lines(`Subject: ${subject}`, '', text));
    const inBoxes = async () => {
      await node.settled();
      return [await node.mailbox(alice), await node.mailbox(bob)].map(({ length }) => length);
    };
    expect(await send('cheap Viagra')).toBe('554 5.7.1 No pills');
    expect(await send(lines('x', 'X-Later: yes'))).toBe('451 4.7.1 Not today');
    expect(await send('junk')).toMatch(/^250 2\.0\.0 Ok: queued as/);
    expect(await send('long', 'x'.repeat(2_100))).toBe('552 5.3.4 Short letters only');
    expect(await inBoxes()).toEqual([0, 0]);
    expect(await accepted(await send('plain'))).toMatchObject({ checks: { 'script:last': 'data kept' } });
    expect(await inBoxes()).toEqual([1, 0]);
    const moved = await accepted(await send('x', 'elsewhere'));
    expect(moved).toMatchObject({ recipients: ['bob@example.test'], checks: { 'script:last': 'data redirected' } });
    expect(await inBoxes()).toEqual([1, 1]);
    await send('x', 'a copy');
    expect(await inBoxes()).toEqual([2, 2]);
    expect(await send('x', 'lost')).toMatch(/^451 4\.3\.5/);
    expect(await dialog.send('a@c.test', ['alice@example.test', 'bob@example.test'])).toBe('554 5.7.1 Not to both');
    expect(await queueLeftovers(node.kv)).toEqual([]);
    expect(await count(node.kv, 'upload')).toBe(0);
  });

  it('speaks for all recipients of LMTP', async () => {
    const { talk, node, alice, bob } = await start(verdicts);
    const both = ['alice@example.test', 'bob@example.test'];
    for (const [subject, first] of [
      ['viagra', /^554 5\.7\.1 .*No pills$/],
      ['junk', /^250 /],
      ['fine', /^250 /],
    ] as const) {
      const dialog = await talk({ mode: 'lmtp' });
      expect(await dialog.send('a@b.test', both, lines(`Subject: ${subject}`, '', ''))).toMatch(first);
      // The second of two replies is read with the next command.
      expect(await dialog.say('NOOP')).toMatch(first);
    }
    await node.settled();
    expect([await node.mailbox(alice), await node.mailbox(bob)].map(({ length }) => length)).toEqual([1, 1]);
  });

  it('sees no more of a body than what is set', async () => {
    const { talk } = await start('if body :raw :contains "needle" { reject "Found"; }', { scripts: { maxSeenBytes: 1_000 } });
    const dialog = await talk();
    const send = (text: string) => dialog.send('a@b.test', 'alice@example.test', lines('Subject: x', '', text));
    expect(await send(`${'hay '.repeat(200)}needle`)).toBe('554 5.7.1 Found');
    expect(await send(`${'hay '.repeat(300)}needle`)).toMatch(/^250/);
  });

  it('is not asked of what is thrown away anyway', async () => {
    const { talk, log } = await start('reject "No";', { sections: { screening: { traps: { match: true } } } });
    expect(await (await talk()).send('a@b.test', 'alice@example.test')).toMatch(/^250/);
    expect(log.some(({ msg }) => msg === 'message taken and thrown away')).toBe(true);
  });
});

describe('a header that a script has edited', () => {
  const edits = `
    deleteheader "X-Spam";
    deleteheader :index 2 "X-Twice";
    addheader "X-Seen-By" "starling";
    addheader :last "X-Last" "end";`;
  const header = lines(
    'From x',
    'Subject: =?utf-8?q?a?=',
    '\tfolded ',
    'X-Spam: no',
    'X-Twice:one',
    'x-twice: two',
    'odd line',
    'X-Spam:',
    ' yes',
  );
  const wanted = lines(
    'X-Seen-By: starling',
    'From x',
    'Subject: =?utf-8?q?a?=',
    '\tfolded ',
    'X-Twice:one',
    'odd line',
    'X-Last: end',
  );

  it('is stored so, and not a byte of the rest differs, on the short way', async () => {
    const { talk, node, alice } = await start(edits);
    const body = lines('', 'Hello,', '.. dots', 'bytes \xc3\xa4', '');
    const dialog = await talk();
    expect(await dialog.send('a@b.test', 'alice@example.test', `${header}\r\n${body}`.replace('\r\n..', '\r\n...'))).toMatch(
      /^250/,
    );
    const [stored] = await node.mailbox(alice);
    expect(stored).toMatch(/^Return-Path: <a@b\.test>\r\nReceived: /);
    expect(fromClient(stored!)).toBe(`${wanted}\r\n${body}\r\n`);
    expect(await node.mail.recount(alice)).toEqual({ differences: [] });
  });

  it('of a message of 5 MB, which nobody holds in memory', async () => {
    const { talk, node, alice } = await start(edits);
    const body = Array.from({ length: 70_000 }, (_, i) => `${i} ${'abcdefghij'.repeat(7)}`).join('\r\n');
    const dialog = await talk();
    expect(await dialog.send('a@b.test', 'alice@example.test', `${header}\r\n\r\n${body}`)).toMatch(/^250/);
    await node.settled();
    const [stored] = await node.mailbox(alice);
    expect(body.length).toBeGreaterThan(5_000_000);
    expect(fromClient(stored!) === `${wanted}\r\n\r\n${body}\r\n`).toBe(true);
    expect(await queueLeftovers(node.kv)).toEqual([]);
    // What was written first has no owner any more: two generations later it is gone.
    const before = await count(node.kv, 'head');
    for (let i = 1; i <= 3; i++) await node.blobs.purge({ nowSeconds: Math.floor(node.clock.nowMs() / 1000) + i * 1_000 });
    expect(await count(node.kv, 'head')).toBe(before - 1);
    expect((await node.mailbox(alice))[0]).toBe(stored);
  });

  it('keeps mail as it came where nothing comes of the edit, or there is none', async () => {
    for (const script of ['keep;', 'deleteheader "X-None";', 'addheader "X-A" "1"; deleteheader "X-A";']) {
      const { talk, node, alice } = await start(script);
      const text = `${header}\r\n\r\nbody`;
      expect(await (await talk()).send('a@b.test', 'alice@example.test', text)).toMatch(/^250/);
      expect(fromClient((await node.mailbox(alice))[0]!)).toBe(`${text}\r\n`);
    }
  });

  it('is there for messages without header, without body, and empty ones', async () => {
    const { talk, node, alice } = await start('addheader "X-A" "1";');
    const dialog = await talk();
    for (const text of ['\r\nbody', 'Subject: x', ''])
      expect(await dialog.send('a@b.test', 'alice@example.test', text)).toMatch(/^250/);
    const stored = (await node.mailbox(alice)).map(fromClient);
    expect(stored).toEqual(['X-A: 1\r\n\r\nbody\r\n', 'X-A: 1\r\nSubject: x\r\n', 'X-A: 1\r\n\r\n']);
  });

  it('goes to other servers without Return-Path, as any other', async () => {
    const { talk, node } = await start('addheader "X-A" "\u00e4"; redirect "carol@elsewhere.test";', { isRunning: false });
    const answer = await (await talk()).send('a@b.test', 'alice@example.test');
    const { message } = (await node.queue.show(/queued as (\w+)/.exec(answer)![1]!))!;
    const stored = await node.blobs.read(message.blobId);
    expect(stored.toString('latin1', message.relayOffsetBytes)).toMatch(/^Received: [\s\S]*\r\nX-A: .*\r\nSubject: hello\r\n/);
    expect(message.body).toBe(stored.some((octet) => octet > 127) ? '8BITMIME' : '7BIT');
  });

  it('that would be too long is a failure of the script', async () => {
    const { talk, log } = await start(`set "a" "${'x'.repeat(8_000)}";\n${'addheader "X-A" "@{a}";\n'.repeat(10)}`);
    const long = `X-Long: ${'y'.repeat(70)}\r\n`.repeat(2_500);
    expect(await (await talk()).send('a@b.test', 'alice@example.test', `${long}\r\n`)).toMatch(/^451 4\.3\.5/);
    expect(log.find(({ script }) => script === 'last')).toMatchObject({
      err: { message: expect.stringContaining('header would have') },
    });
  });
});

describe('a large message whose header is edited', () => {
  const large = `Subject: large\r\n\r\n${'0123456789'.repeat(7).concat('\r\n').repeat(5_000)}`;

  it('is whole through conflicts and unknown commits', async () => {
    const { talk, node, alice, kv } = await start('addheader "X-A" "1";');
    const dialog = await talk();
    Object.assign(kv.faults, { conflict: 0.2, commitUnknownApplied: 0.1, commitUnknownLost: 0.1 });
    const taken: number[] = [];
    for (let i = 0; i < 10; i++) {
      const answer = await dialog.send('a@b.test', 'alice@example.test', `X-Number: ${i}\r\n${large}`);
      if (answer.startsWith('250')) taken.push(i);
    }
    await node.settled();
    kv.faults.clear();
    const wanted = taken.map((i) => `X-A: 1\r\nX-Number: ${i}\r\n${large}\r\n`);
    const stored = (await node.mailbox(alice)).map(fromClient);
    expect(taken.length).toBeGreaterThan(0);
    expect(stored.length === taken.length && wanted.every((one) => stored.includes(one))).toBe(true);
    expect(await queueLeftovers(kv)).toEqual([]);
  });

  it('is not taken when what was written can not be read; nothing is left of it', async () => {
    const { talk, node, alice, kv } = await start('addheader "X-A" "1";');
    const { stream } = node.blobs;
    // biome-ignore lint/correctness/useYield: it fails before its first chunk
    node.blobs.stream = async function* () {
      throw new Error('the disk is gone');
    };
    const dialog = await talk();
    expect(await dialog.send('a@b.test', 'alice@example.test', large)).toMatch(/^451 4\.3\.0/);
    node.blobs.stream = stream;
    expect(await count(kv, 'link')).toBe(0);
    for (let i = 1; i <= 3; i++) await node.blobs.purge({ nowSeconds: Math.floor(node.clock.nowMs() / 1000) + i * 1_000 });
    expect(await count(kv, 'upload')).toBe(0);
    expect(await dialog.send('a@b.test', 'alice@example.test', large)).toMatch(/^250/);
    await node.settled();
    expect((await node.mailbox(alice)).map(fromClient)).toEqual([`X-A: 1\r\n${large}\r\n`]);
  });
});

describe('where the script is passed over', () => {
  it('mail is as it came, with its recipients', async () => {
    const { talk, node, alice } = await start('addheader "X-A" "1"; redirect "nobody@example.test";', {
      scripts: { onFailure: 'accept' },
    });
    expect(await (await talk()).send('a@b.test', 'alice@example.test', 'Subject: x\r\n')).toMatch(/^250/);
    expect(fromClient((await node.mailbox(alice))[0]!)).toBe('Subject: x\r\n\r\n');
  });
});

describe('hostile mail', () => {
  it('costs a script no more than its budget', async () => {
    const test = 'if header :mime :contains "content-type" "xyz" { stop; }';
    const { talk, log } = await start(`foreverypart { ${test.repeat(60)} }`);
    const part = lines('--b', 'Content-Type: text/plain', '', 'a', '');
    const dialog = await talk();
    const text = lines('Content-Type: multipart/mixed; boundary=b', '', part.repeat(6_000), '--b--');
    expect(await dialog.send('a@b.test', 'alice@example.test', text)).toMatch(/^451 4\.3\.5/);
    expect(await dialog.send('a@b.test', 'alice@example.test', 'Subject: x\r\n')).toMatch(/^250/);
    const failures = log.filter(({ script }) => script === 'last');
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatchObject({ line: 2, err: { message: expect.stringContaining('steps') } });
  });
});
