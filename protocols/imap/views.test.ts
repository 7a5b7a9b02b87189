/** TRAPS 28, at random: several sessions change one mailbox at the same time, each followed by a client that believes only what it is told. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TestClient } from './testing/client.js';
import { accountIdOf, startTestServer } from './testing/server.js';

/** What a client knows: UIDs by sequence number - 1; undefined where it was told only that there is one. */
class Believer {
  uids: (number | undefined)[] = [];
  readonly flags = new Map<number, string>();

  constructor(readonly client: TestClient) {}

  async run(command: string, mayExpunge: boolean): Promise<string> {
    const lines = await this.client.command(command);
    const tagged = lines.pop()!;
    for (const line of lines) this.hear(line, command, mayExpunge);
    return tagged;
  }

  hear(line: string, command: string, mayExpunge: boolean): void {
    const [, number, kind] = /^\* (\d+) (EXISTS|EXPUNGE|FETCH)/.exec(line) ?? [];
    if (kind === 'EXISTS') {
      // Never fewer: that is what EXPUNGE is for.
      expect(Number(number)).toBeGreaterThanOrEqual(this.uids.length);
      while (this.uids.length < Number(number)) this.uids.push(undefined);
    } else if (kind === 'EXPUNGE') {
      expect([command, mayExpunge]).toEqual([command, true]);
      expect(Number(number)).toBeLessThanOrEqual(this.uids.length);
      this.uids.splice(Number(number) - 1, 1);
    } else if (kind === 'FETCH') this.hearFetch(Number(number), line);
  }

  private hearFetch(number: number, line: string): void {
    expect(number).toBeLessThanOrEqual(this.uids.length);
    const uid = Number(/UID (\d+)/.exec(line)![1]);
    const known = this.uids[number - 1];
    if (known !== undefined) expect(uid).toBe(known);
    this.uids[number - 1] = uid;
    const before = this.uids.slice(0, number - 1).filter((one) => one !== undefined);
    if (before.length > 0) expect(uid).toBeGreaterThan(before.at(-1)!);
    const flags = /FLAGS \(([^)]*)\)/.exec(line);
    if (flags) this.flags.set(uid, flags[1]!);
  }
}

type Action = {
  session: number;
  kind: 'append' | 'delete' | 'expunge' | 'flag' | 'list' | 'noop' | 'search' | 'move' | 'copy' | 'uid-flag';
  pick: number;
};

const action: fc.Arbitrary<Action> = fc.record({
  session: fc.nat(2),
  kind: fc.constantFrom(
    'append',
    'append',
    'delete',
    'expunge',
    'flag',
    'flag',
    'list',
    'noop',
    'search',
    'move',
    'copy',
    'uid-flag',
  ),
  pick: fc.nat(1_000),
});

/** The command, and whether EXPUNGE may be told with it. */
function commandOf({ kind, pick }: Action, count: number): [string, boolean] | undefined {
  const number = count === 0 ? 0 : 1 + (pick % count);
  if (kind === 'append') return ['APPEND INBOX {5+}\r\nhello', true];
  if (kind === 'expunge') return ['EXPUNGE', true];
  if (kind === 'noop') return ['NOOP', true];
  if (number === 0) return undefined;
  switch (kind) {
    case 'delete':
      return [`STORE ${number} +FLAGS (\\Deleted)`, false];
    case 'flag':
      return [`STORE ${number} ${pick % 2 ? '+' : '-'}FLAGS.SILENT (\\Flagged)`, false];
    case 'list':
      return ['FETCH 1:* (UID FLAGS)', false];
    case 'search':
      return ['SEARCH ALL', false];
    case 'uid-flag':
      return [`UID STORE 1:${pick + 1} +FLAGS (\\Seen)`, true];
    case 'move':
      return [`MOVE ${number} Trash`, true];
    default:
      return [`COPY ${number} INBOX`, true];
  }
}

async function play(actions: readonly Action[], together: boolean): Promise<void> {
  const server = await startTestServer();
  try {
    for (let i = 0; i < 4; i++) await server.deliver('alice', 'INBOX', `Subject: ${i}\r\n\r\n`);
    const believers = await Promise.all([0, 1, 2].map(async () => new Believer(await TestClient.login(server.port))));
    for (const believer of believers) await believer.run('SELECT INBOX', false);
    if (together) {
      await Promise.all(
        believers.map((believer, session) =>
          follow(
            believer,
            actions.filter((one) => one.session === session),
          ),
        ),
      );
    } else {
      for (const one of actions) await follow(believers[one.session]!, [one]);
    }
    const id = accountIdOf('alice');
    const box = (await server.mail.mailboxByPath(id, ['INBOX']))!.mailbox.id;
    const truth = await server.mail.entries(id, box);
    for (const believer of believers) {
      await believer.run('NOOP', true);
      const told = new Map(believer.flags);
      await believer.run('FETCH 1:* (UID FLAGS)', false);
      expect(believer.uids).toEqual(truth.map((entry) => entry.uid));
      // What a client was told of flags, in answers and as news, is what they are; .SILENT changes apart, which it makes itself.
      for (const [uid, flags] of told) {
        const known = (text: string) =>
          text
            .split(' ')
            .filter((flag) => flag !== '\\Flagged' && flag !== '')
            .sort();
        if (believer.uids.includes(uid)) expect(known(flags)).toEqual(known(believer.flags.get(uid)!));
      }
    }
    expect((await server.mail.recount(id)).differences).toEqual([]);
  } finally {
    await server.close();
  }
}

async function follow(believer: Believer, actions: readonly Action[]): Promise<void> {
  for (const one of actions) {
    const command = commandOf(one, believer.uids.length);
    if (command) expect(await believer.run(...command)).not.toMatch(/ BAD | SERVERBUG/);
  }
}

describe('sequence numbers', () => {
  it('mean what the client was told, one session after the other', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 10, maxLength: 40 }), (actions) => play(actions, false)),
      { numRuns: 8 },
    );
  });

  it('mean what the client was told, all sessions at once', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 20, maxLength: 60 }), (actions) => play(actions, true)),
      { numRuns: 8 },
    );
  });
});

describe('any command at all', () => {
  const word = fc.constantFrom(
    'FETCH',
    'UID',
    'STORE',
    'SEARCH',
    'COPY',
    'MOVE',
    'LIST',
    'LSUB',
    'SELECT',
    'EXAMINE',
    'STATUS',
    'CREATE',
    'RENAME',
    'DELETE',
    'EXPUNGE',
    'NOOP',
    'APPEND',
    'ENABLE',
    'ID',
    'CLOSE',
    'INBOX',
    'Trash',
    '"a/b"',
    '""',
    '*',
    '%',
    '1',
    '1:*',
    '$',
    '0',
    '4294967295',
    '2,4:1',
    'FLAGS',
    '+FLAGS',
    '-FLAGS.SILENT',
    '(\\Seen)',
    '\\Deleted',
    'foo',
    '(FLAGS UID)',
    'BODY[]',
    'BODY[1.TEXT]<0.5>',
    'BINARY[1]',
    'ENVELOPE',
    'BODYSTRUCTURE',
    'ALL',
    'NOT',
    'OR',
    'SUBJECT',
    'TEXT',
    'x',
    '(MESSAGES UIDNEXT)',
    'RETURN',
    '(MIN SAVE)',
    '(COUNT)',
    '(SUBSCRIBED)',
    '(STATUS (SIZE))',
    'NIL',
    '{3+}\r\nabc',
    '{3+}\r\n(\r\n',
    '(',
    ')',
    '"',
    '(CHANGEDSINCE 1)',
    '(UNCHANGEDSINCE 0)',
    '1-Jan-2024',
    'SINCE',
    'SENTON',
    'UTF8=ACCEPT',
    'CONDSTORE',
    'IMAP4rev2',
    'HEADER',
    'KEYWORD',
    'MODSEQ',
    'CHARSET',
    'utf-8',
    '&AAA-',
    '\x80\xff',
  );

  it('gets a tagged answer, and never one that admits a fault of ours', async () => {
    const server = await startTestServer({ limits: { maxBadCommands: 1_000_000 } });
    try {
      for (let i = 0; i < 4; i++)
        await server.deliver(
          'alice',
          'INBOX',
          `Subject: ${i}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n`,
        );
      const client = await TestClient.login(server.port);
      const line = fc.array(word, { minLength: 1, maxLength: 6 }).map((words) => words.join(' '));
      await fc.assert(
        fc.asyncProperty(line, async (text) => {
          await client.command('SELECT INBOX');
          expect((await client.command(text)).at(-1)).not.toContain('SERVERBUG');
        }),
        { numRuns: 1_500 },
      );
    } finally {
      await server.close();
    }
  });
});
