/**
 * Sessions that move: a client that speaks QRESYNC is cut off at random, comes back on another node, and believes only what it is told by the rules of RFC 7162
 * section 6. In the end it has what the mailbox has.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../../store/kv/index.js';
import { goAhead } from '../../store/mail/lost-history.js';
import { matchedUpTo } from './qresync.js';
import { TestClient } from './testing/client.js';
import { accountIdOf, startTestServer, type TestServer } from './testing/server.js';

const alice = accountIdOf('alice');

function numbersOf(set: string): number[] {
  return set.split(',').flatMap((range) => {
    const [from, to] = range.split(':').map(Number);
    return Array.from({ length: (to ?? from!) - from! + 1 }, (_, i) => from! + i);
  });
}

/** What a disconnected client keeps, and how it follows the responses. */
class Follower {
  readonly flags = new Map<number, string>();
  /** Messages that the present session has announced. */
  exists = 0;
  #uidValidity = 0;
  #modseq = 0;
  /** Every message up to this UID has been learned of: others may have been told of out of turn. */
  #lastLearned = 0;
  #highestSeen = 0;
  #told: number | undefined;
  #client: TestClient | undefined;

  get isConnected(): boolean {
    return this.#client !== undefined;
  }

  async connect(server: TestServer, withMatch: boolean): Promise<void> {
    this.#client = await TestClient.login(server.port);
    await this.run('ENABLE QRESYNC');
    const uids = [...this.flags.keys()].filter((uid) => uid <= this.#lastLearned).sort((a, b) => a - b);
    const match = withMatch && uids.length > 0 ? ` (1:${uids.length} ${uids.join(',')})` : '';
    const all = this.#lastLearned === 0 ? '' : ` 1:${this.#lastLearned}`;
    const known = this.#modseq === 0 ? '' : ` (QRESYNC (${this.#uidValidity} ${this.#modseq}${all}${match}))`;
    await this.run(`SELECT INBOX${known}`);
    await this.#learnNew();
  }

  /** As a network does it: without a word, perhaps in the middle of an answer. */
  disconnect(lastWords: string): void {
    if (lastWords !== '') this.#client?.send(`x ${lastWords}\r\n`);
    this.#client?.close();
    this.#client = undefined;
    // What was heard of in passing is not kept up to date by what follows.
    for (const uid of this.flags.keys()) if (uid > this.#lastLearned) this.flags.delete(uid);
    this.#highestSeen = 0;
    this.#told = undefined;
  }

  async #learnNew(): Promise<void> {
    if (this.exists !== this.flags.size) await this.run(`UID FETCH ${this.#lastLearned + 1}:* (FLAGS)`);
    expect(this.flags.size).toBe(this.exists);
    this.#lastLearned = Math.max(0, ...this.flags.keys());
  }

  async run(command: string): Promise<void> {
    const lines = await this.#client!.command(command);
    for (const line of lines) this.#hear(line, command);
    expect(lines.at(-1)).not.toMatch(/ BAD | SERVERBUG/);
    // Section 6: what was told counts, else the highest that was seen.
    if (this.#told !== undefined) this.#modseq = this.#told;
    else this.#modseq = Math.max(this.#modseq, this.#highestSeen);
    this.#told = undefined;
    this.#highestSeen = 0;
  }

  async noop(): Promise<void> {
    await this.run('NOOP');
    await this.#learnNew();
  }

  #hear(line: string, command: string): void {
    const code = /\[(UIDVALIDITY|HIGHESTMODSEQ) (\d+)\]/.exec(line);
    if (code?.[1] === 'UIDVALIDITY') this.#uidValidity = Number(code[2]);
    if (code?.[1] === 'HIGHESTMODSEQ') this.#told = Number(code[2]);
    const exists = /^\* (\d+) EXISTS$/.exec(line);
    if (exists) this.exists = Number(exists[1]);
    const vanished = /^\* VANISHED (\(EARLIER\) )?([\d:,]+)$/.exec(line);
    if (vanished) {
      const gone = numbersOf(vanished[2]!);
      if (!vanished[1]) {
        // 3.2.10.2: each of them is one message less; never in FETCH, STORE or SEARCH.
        this.exists -= gone.length;
        expect(command).not.toMatch(/^(FETCH|STORE|SEARCH|UID SEARCH 1)/);
      }
      for (const uid of gone) this.flags.delete(uid);
    }
    expect(line).not.toMatch(/^\* \d+ EXPUNGE/);
    const fetch = /^\* \d+ FETCH \((.*)\)$/.exec(line)?.[1];
    if (fetch === undefined) return;
    const uid = Number(/UID (\d+)/.exec(fetch)![1]);
    const flags = /FLAGS \(([^)]*)\)/.exec(fetch);
    if (flags) this.flags.set(uid, flags[1]!.split(' ').sort().join(' '));
    // 3.2.4: whatever comes unasked has both.
    const modseq = /MODSEQ \((\d+)\)/.exec(fetch);
    if (!command.startsWith('UID FETCH')) expect(modseq).not.toBeNull();
    if (modseq) this.#highestSeen = Math.max(this.#highestSeen, Number(modseq[1]));
  }
}

type Action = { kind: string; node: number; pick: number };

const action: fc.Arbitrary<Action> = fc.record({
  kind: fc.constantFrom(
    'append',
    'append',
    'flag',
    'flag',
    'flag',
    'remove',
    'remove',
    'disconnect',
    'cut',
    'noop',
    'fetch',
    'store',
    'uid-store',
    'search',
    'uid-search',
    'expunge',
    'move',
    'vanished',
    'forget',
  ),
  node: fc.nat(1),
  pick: fc.nat(1_000),
});

class World {
  mailboxId = '';
  constructor(readonly servers: TestServer[]) {}

  get mail() {
    return this.servers[0]!.mail;
  }

  async uids(): Promise<number[]> {
    return (await this.mail.entries(alice, this.mailboxId)).map((entry) => entry.uid);
  }

  /** What others do, through any node. */
  async change({ kind, node, pick }: Action): Promise<void> {
    const { mail } = this.servers[node]!;
    if (kind === 'append') {
      await this.servers[node]!.deliver('alice', 'INBOX', `Subject: ${pick}\r\n\r\n`);
      return;
    }
    if (kind === 'forget') {
      // The log is cut off: what went is not known exactly any more.
      const { modseq } = await mail.usage(alice);
      await mail.truncateLog(alice, modseq - (pick % 3));
      return;
    }
    const uids = await this.uids();
    const uid = uids[pick % Math.max(1, uids.length)];
    if (uid === undefined) return;
    if (kind === 'flag') {
      const mode = pick % 2 ? 'add' : 'remove';
      await mail.changeFlags(alice, this.mailboxId, [uid], { mode, keywords: ['$flagged'], deleted: pick % 3 === 0 });
    } else if (kind === 'remove') await mail.expunge(alice, this.mailboxId, [uid], { onlyDeleted: false });
  }
}

async function commandOf(follower: Follower, { kind, pick }: Action): Promise<void> {
  const number = 1 + (pick % Math.max(1, follower.exists));
  const commands: Record<string, string> = {
    fetch: 'FETCH 1:* (UID FLAGS MODSEQ)',
    store: `STORE ${number} ${pick % 2 ? '+' : '-'}FLAGS (\\Seen)`,
    'uid-store': `UID STORE 1:${1 + pick} +FLAGS (\\Deleted)`,
    search: 'SEARCH MODSEQ 1',
    'uid-search': 'UID SEARCH 1:*',
    expunge: 'EXPUNGE',
    move: `MOVE ${number} Trash`,
    vanished: 'UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)',
  };
  const command = commands[kind]!;
  if (follower.exists === 0 && /^(STORE|MOVE)/.test(command)) return;
  await follower.run(command);
}

async function play(actions: readonly Action[]): Promise<void> {
  const kv = openMemoryStore({ clock: systemClock });
  const servers = [await startTestServer({ kv }), await startTestServer({ kv })];
  try {
    const world = new World(servers);
    for (let i = 0; i < 6; i++) await servers[0]!.deliver('alice', 'INBOX', `Subject: ${i}\r\n\r\n`);
    world.mailboxId = (await world.mail.mailboxByPath(alice, ['INBOX']))!.mailbox.id;
    const follower = new Follower();
    for (const one of actions) {
      if (['append', 'flag', 'remove', 'forget'].includes(one.kind)) {
        await world.change(one);
        continue;
      }
      if (!follower.isConnected) await follower.connect(servers[one.node]!, one.pick % 2 === 0);
      if (one.kind === 'disconnect') follower.disconnect('');
      else if (one.kind === 'cut') follower.disconnect(`UID STORE 1:* +FLAGS (\\Answered)`);
      else if (one.kind === 'noop') await follower.noop();
      else await commandOf(follower, one);
    }
    if (follower.isConnected) follower.disconnect('');
    // What a client that is cut off has sent may be carried out a little later.
    await Promise.all(servers.map((server) => expect.poll(() => server.sessions.size).toBe(0)));
    // In every other run nobody remembers what went.
    if (actions.length % 2 === 1) await world.mail.truncateLog(alice, (await world.mail.usage(alice)).modseq);
    // A node that has never seen the mailbox, and knows of what went from the log alone, or not at all.
    servers.push(await startTestServer({ kv }));
    await follower.connect(servers[2]!, false);
    const truth = await servers[2]!.mail.entries(alice, world.mailboxId);
    expect([...follower.flags.keys()].sort((a, b) => a - b)).toEqual(truth.map((entry) => entry.uid));
    for (const entry of truth) {
      const flags = follower.flags.get(entry.uid)!.toLowerCase();
      expect([entry.uid, flags.includes('\\deleted')]).toEqual([entry.uid, entry.isDeleted]);
      for (const name of ['seen', 'flagged', 'answered'])
        expect([entry.uid, name, flags.includes(`\\${name}`)]).toEqual([entry.uid, name, entry.keywords.includes(`$${name}`)]);
    }
    follower.disconnect('');
  } finally {
    await Promise.all(servers.map((server) => server.close()));
    await kv.close();
  }
}

describe('a session that moves', () => {
  it('gets exactly what it missed', async () => {
    await fc.assert(fc.asyncProperty(fc.array(action, { minLength: 15, maxLength: 50 }), play), { numRuns: 12 });
  });

  it('gets the flags that it did not want to hear of with NOTIFY', async () => {
    const server = await startTestServer({});
    try {
      for (let i = 0; i < 3; i++) await server.deliver('alice', 'INBOX', `Subject: ${i}\r\n\r\n`);
      const client = await TestClient.login(server.port);
      await client.ok('ENABLE QRESYNC');
      const uidValidity = /UIDVALIDITY (\d+)/.exec((await client.ok('SELECT INBOX')).join('\n'))![1];
      await client.ok('NOTIFY SET (selected-delayed (MessageNew MessageExpunge))');
      const other = await TestClient.login(server.port);
      await other.ok('SELECT INBOX');
      await other.ok('STORE 1 +FLAGS (\\Flagged)');
      await other.ok('STORE 2 +FLAGS (\\Deleted)');
      await other.ok('EXPUNGE');
      const told = await client.command('NOOP');
      expect(told[0]).toBe('* VANISHED 2');
      expect(told.filter((line) => line.includes('FETCH'))).toEqual([]);
      const modseq = /HIGHESTMODSEQ (\d+)/.exec(told.join('\n'))![1];
      await client.ok('UNSELECT');
      const again = await client.ok(`SELECT INBOX (QRESYNC (${uidValidity} ${modseq}))`);
      expect(again.filter((line) => line.includes('FETCH')).join()).toMatch(
        /^\* 1 FETCH \(UID 1 FLAGS \(\\Flagged\) MODSEQ \(\d+\)\)$/,
      );
    } finally {
      await server.close();
    }
  });
});

describe('a store that was put back', () => {
  /** What was told of each UID. */
  const tellsOf = (lines: readonly string[]) =>
    [...lines.join('\n').matchAll(/FETCH \(UID (\d+)/g)].map(([, uid]) => Number(uid));

  it('gives no UID again, and tells who has seen the time that is lost everything', async () => {
    const lostStore = openMemoryStore({ clock: systemClock });
    const lost = await startTestServer({ kv: lostStore });
    for (let n = 1; n <= 4; n++) await lost.deliver('alice', 'INBOX', `Subject: ${n}\r\n\r\n`);
    const backup = await lostStore.read((reads) => reads.getRange(Buffer.of(0), Buffer.of(0xff)));
    const client = await TestClient.login(lost.port);
    await client.ok('ENABLE QRESYNC');
    const before = (await client.ok('SELECT INBOX')).join('\n');
    const uidValidity = Number(/UIDVALIDITY (\d+)/.exec(before)![1]);
    const savedModseq = Number(/HIGHESTMODSEQ (\d+)/.exec(before)![1]);
    // All of this is lost.
    await client.ok('STORE 1 +FLAGS (\\Seen)');
    await client.ok('UID STORE 2 +FLAGS (\\Deleted)');
    await client.ok('EXPUNGE');
    for (let n = 5; n <= 9; n++) await lost.deliver('alice', 'INBOX', `Subject: lost ${n}\r\n\r\n`);
    const lostModseq = Number(/HIGHESTMODSEQ (\d+)/.exec((await client.ok('STATUS INBOX (HIGHESTMODSEQ)')).join())![1]);
    expect(lostModseq).toBeGreaterThan(savedModseq + 1);
    client.close();
    await lost.close();

    const kv = openMemoryStore({ clock: systemClock });
    await kv.transact(async (tx) => {
      for (const { key, value } of backup) tx.set(key, value);
    });
    await goAhead({ kv, clock: systemClock, random: systemRandom }, alice);
    const server = await startTestServer({ kv });
    const uid = await server.deliver('alice', 'INBOX', 'Subject: new\r\n\r\n');
    expect(uid).toBeGreaterThan(9);
    expect((await server.mail.recount(alice)).differences).toEqual([]);

    const back = await TestClient.login(server.port);
    await back.ok('ENABLE QRESYNC');
    const told = await back.ok(`SELECT INBOX (QRESYNC (${uidValidity} ${lostModseq} 1,3:9))`);
    expect(told).toContain('* VANISHED (EARLIER) 5:9');
    // The client hears of the message that it saw go, and of flags that are again what they were.
    expect(tellsOf(told)).toEqual([1, 3, 4]);
    expect(tellsOf(await back.ok(`UID FETCH 1:* (FLAGS) (CHANGEDSINCE ${lostModseq})`))).toEqual([1, 2, 3, 4, uid]);
    expect(await back.ok(`UID SEARCH MODSEQ ${lostModseq + 1}`)).toEqual([expect.stringMatching(`^\\* SEARCH 1 2 3 4 ${uid} `)]);
    expect((await back.command(`UID STORE 1 (UNCHANGEDSINCE ${lostModseq}) +FLAGS.SILENT (\\Flagged)`)).at(-1)).toContain(
      '[MODIFIED 1]',
    );

    // Who has seen nothing of it hears of what is new, and perhaps that what never was is not there; from here on everybody only of what is new.
    const newest = Number(/HIGHESTMODSEQ (\d+)/.exec(told.join())![1]);
    const fromBackup = await back.ok(`SELECT INBOX (QRESYNC (${uidValidity} ${savedModseq}))`);
    expect(tellsOf(fromBackup)).toEqual([uid]);
    expect(fromBackup).toContain(`* VANISHED (EARLIER) 5:${uid - 1}`);
    const fromNow = await back.ok(`SELECT INBOX (QRESYNC (${uidValidity} ${newest - 1}))`);
    expect(tellsOf(fromNow)).toEqual([uid]);
    expect(fromNow.join()).not.toContain('VANISHED');
    back.close();
    await server.close();
  });
});

describe('message numbers and UIDs that a client remembers', () => {
  it('match up to the last pair that is true', () => {
    const uid = fc.integer({ min: 1, max: 60 });
    fc.assert(
      fc.property(fc.uniqueArray(uid, { maxLength: 30 }), fc.uniqueArray(uid, { minLength: 1, maxLength: 30 }), (now, then) => {
        const uids = now.sort((a, b) => a - b);
        const known = then.sort((a, b) => a - b);
        let last = 0;
        known.forEach((one, at) => {
          if (uids[at] === one) last = one;
        });
        // All numbers at once, and one by one.
        const pairs = known.flatMap((one) => [one, one]);
        expect(matchedUpTo(uids, { sequences: [1, known.length], uids: pairs })).toBe(last);
        const numbers = known.flatMap((_, at) => [at + 1, at + 1]);
        expect(matchedUpTo(uids, { sequences: numbers, uids: pairs })).toBe(last);
      }),
    );
  });

  it('may be ranges of any length', () => {
    const uids = [1, 2, 3, 10, 11, 12, 13];
    expect(matchedUpTo(uids, { sequences: [1, 3], uids: [1, 3] })).toBe(3);
    expect(matchedUpTo(uids, { sequences: [1, 4_000_000], uids: [1, 4_000_000] })).toBe(3);
    expect(matchedUpTo(uids, { sequences: [2, 7], uids: [2, 3, 10, 13] })).toBe(13);
    expect(matchedUpTo(uids, { sequences: [100, 200], uids: [100, 200] })).toBe(0);
  });
});
