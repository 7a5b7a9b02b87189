/** Random copies, moves, replacements and removals between two accounts under conflicts and unknown commits: nothing is lost or doubled, and all counts agree. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blobLinks, mailboxId, newMessage, openRoom, type Room } from './fixture.js';
import type { MailboxOf } from './index.js';
import { AccountKeys } from './keys.js';

const accounts = ['alice0000000000a', 'bob000000000000b'] as const;
const faults = { conflict: 0.15, commitUnknownApplied: 0.15, commitUnknownLost: 0.1 };
const carries = { seen: true, deleted: true, others: true };
/** Every message of a text answers for one id: threads form on both sides. */
const messageIdsOf = (summary: Buffer) => [summary.toString()];

interface Step {
  op: 'copy' | 'move' | 'within' | 'replace' | 'expunge';
  from: number;
  to: number;
  nth: number[];
  atOnce: boolean;
}

const place = fc.nat({ max: 3 });
const step: fc.Arbitrary<Step> = fc.record({
  op: fc.constantFrom('copy', 'move', 'move', 'within', 'replace', 'expunge'),
  from: place,
  to: place,
  nth: fc.uniqueArray(fc.nat({ max: 5 }), { minLength: 1, maxLength: 4 }),
  atOnce: fc.boolean(),
});

async function openPlaces(room: Room): Promise<MailboxOf[]> {
  const places: MailboxOf[] = [];
  for (const accountId of accounts) {
    await room.mail.ensureAccount(accountId);
    for (const name of ['INBOX', 'Archive']) places.push({ accountId, mailboxId: await mailboxId(room, accountId, name) });
  }
  return places;
}

/** The texts of all entries of a place, by its UIDs. */
async function textsOf(room: Room, { accountId, mailboxId: id }: MailboxOf): Promise<string[]> {
  const entries = await room.mail.entries(accountId, id);
  const found = await room.mail.messages(
    accountId,
    entries.map(({ emailId }) => emailId),
  );
  return Promise.all(found.map(async (message) => (await room.blobs.read(message!.blobId)).toString()));
}

async function run(room: Room, places: readonly MailboxOf[], { op, from, to, nth }: Step): Promise<void> {
  const [source, target] = [places[from]!, places[to]!];
  const all = (await room.mail.entries(source.accountId, source.mailboxId)).map(({ uid }) => uid);
  const uids = nth.flatMap((n) => all[n] ?? []);
  if (op === 'expunge') await room.mail.expunge(source.accountId, source.mailboxId, uids, { onlyDeleted: false });
  else if (op === 'replace') {
    const message = newMessage(room, [target.mailboxId], 'replaced', { messageIds: ['summary of one'] });
    const replacing = uids[0] === undefined ? undefined : room.mail.replace(source, uids[0], target.accountId, message);
    await replacing?.catch((error: { code?: string }) => expect(error.code).toBe('no-message'));
  } else if (source.accountId !== target.accountId)
    await room.mail.copyBetween(source, uids, target, { carries, messageIdsOf, leavesSource: op === 'move' });
  else if (op === 'move') await room.mail.move(source.accountId, source.mailboxId, uids, target.mailboxId);
  else await room.mail.copy(source.accountId, source.mailboxId, uids, target.mailboxId);
}

async function agree(room: Room): Promise<void> {
  for (const accountId of accounts) {
    expect((await room.mail.recount(accountId)).differences).toEqual([]);
    const { begin, end } = new AccountKeys(accountId).allMessages;
    const keys = new AccountKeys(accountId);
    const rows = await room.kv.read((reads) => reads.getRange(begin, end));
    const links = (await blobLinks(room.kv, accountId)).map((link) => link.split('/')[1]);
    expect(links.sort()).toEqual(rows.map((row) => keys.messageOf(row.key)).sort());
  }
}

describe('two accounts', () => {
  it('agree with themselves after any copies and moves between them, some at once', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const room = await openRoom('memory', { faults });
        try {
          const places = await openPlaces(room);
          for (const [at, text] of ['one', 'two', 'one', 'three', 'four', 'two'].entries()) {
            const { accountId, mailboxId: id } = places[at % 4]!;
            await room.mail.append(accountId, [newMessage(room, [id], text, { messageIds: [`summary of ${text}`] })]);
          }
          let running: Promise<void>[] = [];
          for (const one of steps) {
            running.push(run(room, places, one));
            if (one.atOnce) continue;
            await Promise.all(running);
            running = [];
          }
          await Promise.all(running);
          await agree(room);
        } finally {
          await room.close();
        }
      }),
      { numRuns: 20 },
    );
  });

  it('hold the same messages between them whatever is moved', async () => {
    const moves = fc.array(
      step.map((one): Step => ({ ...one, op: 'move' })),
      { minLength: 1, maxLength: 10 },
    );
    await fc.assert(
      fc.asyncProperty(moves, async (steps) => {
        const room = await openRoom('memory', { faults });
        try {
          const places = await openPlaces(room);
          const texts = ['a', 'b', 'c', 'd', 'e', 'f'];
          for (const [at, text] of texts.entries()) {
            const { accountId, mailboxId: id } = places[at % 4]!;
            await room.mail.append(accountId, [newMessage(room, [id], text)]);
          }
          await Promise.all(steps.map((one) => run(room, places, one)));
          const after: string[] = [];
          for (const one of places) after.push(...(await textsOf(room, one)));
          expect(after.sort()).toEqual(texts);
          await agree(room);
        } finally {
          await room.close();
        }
      }),
      { numRuns: 10 },
    );
  });
});
