/** Random operations against a plain model, with and without injected conflicts and unknown commits; afterwards everything must agree. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MemoryFaultOptions } from '../kv/index.js';
import { blobLinks, newMessage, openRoom, type Room, rowsOf, type TestBackend } from './fixture.js';
import { type MailboxIndex, MailError } from './index.js';

const account = 'a1';
const names = ['INBOX', 'Archive', 'x', 'y'] as const;
const keywords = ['$seen', '$flagged', 'later'] as const;

type Operation =
  | { op: 'append'; to: number[]; text: number; keywords: string[]; thread: number }
  | { op: 'flags'; in: number; nth: number[]; keywords: string[]; deleted: boolean; mode: 'add' | 'remove' | 'replace' }
  | { op: 'copy' | 'move'; from: number; to: number; nth: number[] }
  | { op: 'expunge'; in: number; nth: number[]; onlyDeleted: boolean }
  | { op: 'create' | 'delete'; name: number }
  | { op: 'rename'; name: number; to: number }
  | { op: 'truncate'; back: number };

const place = fc.nat({ max: names.length - 1 });
const places = fc.uniqueArray(fc.nat({ max: 7 }), { maxLength: 4 });
const words = fc.subarray([...keywords]);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('append' as const),
      to: fc.uniqueArray(place, { minLength: 1, maxLength: 3 }),
      text: fc.nat({ max: 4 }),
      keywords: words,
      thread: fc.nat({ max: 3 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('flags' as const),
      in: place,
      nth: places,
      keywords: words,
      deleted: fc.boolean(),
      mode: fc.constantFrom('add' as const, 'remove' as const, 'replace' as const),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ op: fc.constantFrom('copy' as const, 'move' as const), from: place, to: place, nth: places }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('expunge' as const), in: place, nth: places, onlyDeleted: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('create' as const, 'delete' as const), name: place }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('rename' as const), name: place, to: place }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('truncate' as const), back: fc.nat({ max: 4 }) }) },
);

interface ModelMessage {
  text: string;
  keywords: Set<string>;
}
interface ModelEntry {
  message: ModelMessage;
  isDeleted: boolean;
}
interface ModelMailbox {
  uidNext: number;
  entries: Map<number, ModelEntry>;
}

/** What the contract says, written as plainly as possible. */
class Model {
  readonly mailboxes = new Map<string, ModelMailbox>();

  constructor(initial: readonly string[]) {
    for (const name of initial) this.create(name);
  }
  create(name: string): void {
    this.mailboxes.set(name, { uidNext: 1, entries: new Map() });
  }
  uids(name: string, nth: readonly number[]): number[] {
    const all = [...(this.mailboxes.get(name)?.entries.keys() ?? [])];
    return nth.map((n) => all[n] ?? 1_000 + n).sort((a, b) => a - b);
  }
  add(name: string, message: ModelMessage, isDeleted: boolean): number {
    const mailbox = this.mailboxes.get(name)!;
    mailbox.entries.set(mailbox.uidNext, { message, isDeleted });
    return mailbox.uidNext++;
  }
  has(name: string, message: ModelMessage): boolean {
    return [...this.mailboxes.get(name)!.entries.values()].some((entry) => entry.message === message);
  }
  copy(from: string, uids: readonly number[], to: string, moves: boolean): { sourceUid: number; targetUid: number }[] {
    const source = this.mailboxes.get(from)!;
    return uids.flatMap((uid) => {
      const entry = source.entries.get(uid);
      if (!entry) return [];
      const staysHere = this.has(to, entry.message) && !(moves && from === to);
      const message = staysHere ? { ...entry.message, keywords: new Set(entry.message.keywords) } : entry.message;
      if (moves) source.entries.delete(uid);
      return [{ sourceUid: uid, targetUid: this.add(to, message, entry.isDeleted) }];
    });
  }
  messages(): Set<ModelMessage> {
    return new Set([...this.mailboxes.values()].flatMap(({ entries }) => [...entries.values()].map(({ message }) => message)));
  }
}

async function idOf(room: Room, name: string): Promise<string> {
  return (await room.mail.mailboxByPath(account, [name]))?.mailbox.id ?? 'gone';
}

/** The error code of what is refused; anything else is thrown on. */
async function outcome<T>(work: Promise<T>): Promise<T | string> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof MailError) return error.code;
    throw error;
  }
}

async function apply(room: Room, model: Model, step: Operation): Promise<void> {
  const exists = (name: string) => model.mailboxes.has(name);
  switch (step.op) {
    case 'append': {
      const to = step.to.map((n) => names[n]!);
      const ids = await Promise.all(to.map((name) => idOf(room, name)));
      const text = 'x'.repeat(step.text + 1);
      const messageIds = [`${step.thread}@x`, `${step.text}@y`];
      const done = await outcome(
        room.mail.append(account, [newMessage(room, ids, text, { keywords: step.keywords, messageIds })]),
      );
      if (!to.every(exists)) return expect(done).toBe('no-mailbox');
      const message = { text, keywords: new Set(step.keywords) };
      const uids = to.map((name) => model.add(name, message, false));
      return expect(typeof done === 'string' ? done : done[0]!.uids.map(({ uid }) => uid)).toEqual(uids);
    }
    case 'flags': {
      const name = names[step.in]!;
      const uids = model.uids(name, step.nth);
      const change = { mode: step.mode, keywords: step.keywords, deleted: step.deleted };
      const done = await outcome(room.mail.changeFlags(account, await idOf(room, name), uids, change));
      if (!exists(name)) return void (uids.length > 0 && expect(done).toBe('no-mailbox'));
      for (const uid of uids) {
        const entry = model.mailboxes.get(name)!.entries.get(uid);
        if (!entry) continue;
        const now = entry.message.keywords;
        if (step.mode === 'replace') now.clear();
        for (const keyword of step.keywords) step.mode === 'remove' ? now.delete(keyword) : now.add(keyword);
        if (step.mode === 'replace') entry.isDeleted = step.deleted;
        else if (step.deleted) entry.isDeleted = step.mode === 'add';
      }
      return;
    }
    case 'copy':
    case 'move': {
      const [from, to] = [names[step.from]!, names[step.to]!];
      const uids = model.uids(from, step.nth);
      const done = await outcome(room.mail[step.op](account, await idOf(room, from), uids, await idOf(room, to)));
      if (!exists(from) || !exists(to)) return expect(done).toBe('no-mailbox');
      return expect(typeof done === 'string' ? done : done.pairs).toEqual(model.copy(from, uids, to, step.op === 'move'));
    }
    case 'expunge': {
      const name = names[step.in]!;
      const uids = model.uids(name, step.nth);
      const { onlyDeleted } = step;
      const done = await outcome(room.mail.expunge(account, await idOf(room, name), uids, { onlyDeleted }));
      if (!exists(name)) return void (uids.length > 0 && expect(done).toBe('no-mailbox'));
      const { entries } = model.mailboxes.get(name)!;
      const gone = uids.filter((uid) => entries.has(uid) && (!onlyDeleted || entries.get(uid)!.isDeleted));
      for (const uid of gone) entries.delete(uid);
      return expect(done).toEqual(gone);
    }
    default:
      return applyToMailboxes(room, model, step);
  }
}

async function applyToMailboxes(room: Room, model: Model, step: Operation): Promise<void> {
  if (step.op === 'create') {
    const name = names[step.name]!;
    const done = await outcome(room.mail.createMailbox(account, [name]));
    if (model.mailboxes.has(name)) expect(done).toBe('mailbox-exists');
    else model.create(name);
  } else if (step.op === 'delete') {
    const name = names[step.name]!;
    const done = await outcome(room.mail.deleteMailbox(account, [name]));
    if (name === 'INBOX') expect(done).toBe('not-allowed');
    else expect(done).toBe(model.mailboxes.delete(name) ? undefined : 'no-mailbox');
  } else if (step.op === 'rename') {
    const [from, to] = [names[step.name]!, names[step.to]!];
    const done = await outcome(room.mail.renameMailbox(account, [from], [to]));
    if (!model.mailboxes.has(from)) expect(done).toBe('no-mailbox');
    else if (model.mailboxes.has(to)) expect(done).toBe('mailbox-exists');
    else {
      expect(done).toBeUndefined();
      const mailbox = model.mailboxes.get(from)!;
      if (from === 'INBOX') {
        model.create(to);
        model.copy(from, [...mailbox.entries.keys()], to, true);
      } else {
        model.mailboxes.delete(from);
        model.mailboxes.set(to, mailbox);
      }
    }
  } else if (step.op === 'truncate') {
    const { modseq } = await room.mail.usage(account);
    await room.mail.truncateLog(account, modseq - step.back);
  }
}

async function compare(room: Room, model: Model, indexes: Map<string, MailboxIndex>): Promise<void> {
  await room.mail.idle();
  expect((await room.mail.recount(account)).differences).toEqual([]);
  const used = [...model.messages()].reduce((sum, { text }) => sum + text.length, 0);
  expect(await room.mail.usage(account)).toMatchObject({ usedBytes: used, messages: model.messages().size });
  const links: string[] = [];
  const seen = new Set<string>();
  for (const [name, { entries, uidNext }] of model.mailboxes) {
    const { mailbox, counts } = (await room.mail.mailboxByPath(account, [name]))!;
    const stored = await room.mail.entries(account, mailbox.id);
    const plain = stored.map((entry) => [entry.uid, entry.isDeleted, entry.sizeBytes, [...entry.keywords].sort()]);
    const wanted = [...entries].map(([uid, { message, isDeleted }]) => [
      uid,
      isDeleted,
      message.text.length,
      [...message.keywords].sort(),
    ]);
    expect(plain).toEqual(wanted);
    expect(counts.uidNext).toBe(uidNext);
    const index = indexes.get(mailbox.id) ?? (await room.mail.openIndex(account, mailbox.id));
    indexes.set(mailbox.id, index);
    await index.refresh();
    expect(index.uids().map((uid) => index.get(uid))).toEqual(stored);
    for (const message of await room.mail.messages(
      account,
      stored.map(({ emailId }) => emailId),
    )) {
      if (!seen.has(message!.id)) links.push(`${message!.blobId}/${message!.id}`);
      seen.add(message!.id);
    }
  }
  expect(await blobLinks(room.kv, account)).toEqual(links.sort());
  expect((await room.mail.mailboxes(account)).map(({ mailbox }) => mailbox.name).sort()).toEqual(
    [...model.mailboxes.keys()].sort(),
  );
}

async function run(backend: TestBackend, steps: readonly Operation[], faults?: MemoryFaultOptions): Promise<void> {
  const room = await openRoom(backend, faults ? { faults } : {});
  try {
    await room.mail.ensureAccount(account);
    const model = new Model((await room.mail.mailboxes(account)).map(({ mailbox }) => mailbox.name));
    const indexes = new Map<string, MailboxIndex>();
    let { modseq } = await room.mail.usage(account);
    for (const [nth, step] of steps.entries()) {
      await apply(room, model, step);
      const now = (await room.mail.usage(account)).modseq;
      expect(now).toBeGreaterThanOrEqual(modseq);
      const changes = await room.mail.changesSince(account, modseq);
      // Each modseq has its set; none is skipped, none comes twice.
      if (changes)
        expect(changes.sets.map((set) => set.modseq)).toEqual(Array.from({ length: now - modseq }, (_, n) => modseq + 1 + n));
      modseq = now;
      if (nth % 8 === 7) await compare(room, model, indexes);
    }
    await compare(room, model, indexes);
    for (const index of indexes.values()) index.release();
    // Nothing is left when all mail is gone.
    for (const name of model.mailboxes.keys()) {
      const id = await idOf(room, name);
      const uids = (await room.mail.entries(account, id)).map(({ uid }) => uid);
      await room.mail.expunge(account, id, uids, { onlyDeleted: false });
    }
    const rows = await rowsOf(room.kv, account);
    for (const table of ['message', 'summary', 'entry', 'thread', 'reference', 'removal'])
      expect(rows.get(table)).toBeUndefined();
    expect(await blobLinks(room.kv, account)).toEqual([]);
  } finally {
    await room.close();
  }
}

const sequences = (maxLength: number) => fc.array(operation, { minLength: 1, maxLength, size: 'max' });

describe('the mail store against a model', () => {
  it('agrees on memory', async () => {
    await fc.assert(
      fc.asyncProperty(sequences(40), (steps) => run('memory', steps)),
      { numRuns: 60 },
    );
  }, 60_000);

  it('agrees with conflicts and unknown commits', async () => {
    const faults = { conflict: 0.1, commitUnknownApplied: 0.1, commitUnknownLost: 0.05 };
    await fc.assert(
      fc.asyncProperty(sequences(25), (steps) => run('memory', steps, faults)),
      { numRuns: 25 },
    );
  }, 90_000);

  it('agrees on embedded', async () => {
    await fc.assert(
      fc.asyncProperty(sequences(40), (steps) => run('embedded', steps)),
      { numRuns: 5 },
    );
  }, 60_000);
});
