/** Random operations against a plain model, with and without injected conflicts and unknown commits; afterwards everything must agree. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { MemoryFaultOptions } from '../kv/index.js';
import { checkStore } from '../transfer/check/index.js';
import { impatientClock } from '../transfer/test-bench.js';
import { blobLinks, newMessage, openRoom, type Room, rowsOf, type TestBackend } from './fixture.js';
import { settleStep } from './flag-settling.js';
import {
  createMailStore,
  type FlagRights,
  type FlagState,
  type MailboxIndex,
  MailError,
  type MailStoreOptions,
  type OpenMailStore,
} from './index.js';
import { AccountKeys } from './keys.js';

const account = 'a1';
const names = ['INBOX', 'Archive', 'x', 'y'] as const;
const keywords = ['$seen', '$flagged', 'later'] as const;

type Operation =
  | { op: 'append'; to: number[]; text: number; keywords: string[]; thread: number }
  | {
      op: 'flags';
      in: number;
      nth: number[];
      keywords: string[];
      deleted: boolean;
      mode: 'add' | 'remove' | 'replace';
      allowed: FlagRights | undefined;
      /** UNCHANGEDSINCE, so many modseqs ago. */
      back: number | undefined;
    }
  | { op: 'settle'; in: number; entries: number }
  | { op: 'copy' | 'move'; from: number; to: number; nth: number[] }
  | { op: 'expunge'; in: number; nth: number[]; onlyDeleted: boolean }
  | { op: 'create' | 'delete'; name: number }
  | { op: 'rename'; name: number; to: number }
  | { op: 'truncate'; back: number };

const place = fc.nat({ max: names.length - 1 });
const places = fc.uniqueArray(fc.nat({ max: 7 }), { maxLength: 4 });
const words = fc.subarray([...keywords]);
const appendTo = (to: fc.Arbitrary<number[]>): fc.Arbitrary<Operation> =>
  fc.record({
    op: fc.constant('append' as const),
    to,
    text: fc.nat({ max: 4 }),
    keywords: words,
    thread: fc.nat({ max: 3 }),
  });
const flagsOf = (nth: fc.Arbitrary<number[]>): fc.Arbitrary<Operation> =>
  fc.record({
    op: fc.constant('flags' as const),
    in: place,
    nth,
    keywords: words,
    deleted: fc.boolean(),
    mode: fc.constantFrom('add' as const, 'remove' as const, 'replace' as const),
    allowed: fc.oneof(
      { weight: 3, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.record({ seen: fc.boolean(), deleted: fc.boolean(), others: fc.boolean() }) },
    ),
    back: fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.nat({ max: 12 }) }),
  });
const copyOrMove: fc.Arbitrary<Operation> = fc.record({
  op: fc.constantFrom('copy' as const, 'move' as const),
  from: place,
  to: place,
  nth: places,
});
const expunge: fc.Arbitrary<Operation> = fc.record({
  op: fc.constant('expunge' as const),
  in: place,
  nth: places,
  onlyDeleted: fc.boolean(),
});
const settle: fc.Arbitrary<Operation> = fc.record({
  op: fc.constant('settle' as const),
  in: place,
  entries: fc.integer({ min: 1, max: 3 }),
});
const ofMailboxes: fc.WeightedArbitrary<Operation>[] = [
  { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('create' as const, 'delete' as const), name: place }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('rename' as const), name: place, to: place }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('truncate' as const), back: fc.nat({ max: 4 }) }) },
];
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 6, arbitrary: appendTo(fc.uniqueArray(place, { minLength: 1, maxLength: 3 })) },
  { weight: 5, arbitrary: flagsOf(places) },
  { weight: 6, arbitrary: copyOrMove },
  { weight: 4, arbitrary: expunge },
  ...ofMailboxes,
);
/** Mostly messages of one mailbox, whose flags are changed again and again; now and then one that is in two. */
const rangeOperation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 20, arbitrary: appendTo(fc.tuple(place)) },
  { weight: 1, arbitrary: appendTo(fc.uniqueArray(place, { minLength: 2, maxLength: 3 })) },
  { weight: 40, arbitrary: flagsOf(fc.uniqueArray(fc.nat({ max: 7 }), { minLength: 1, maxLength: 8 })) },
  { weight: 5, arbitrary: copyOrMove },
  { weight: 6, arbitrary: expunge },
  { weight: 10, arbitrary: settle },
  ...ofMailboxes,
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

/** Whether anything has changed by it. */
function changeInModel(entry: ModelEntry, step: Operation & { op: 'flags' }): boolean {
  const { mode, allowed } = step;
  const text = () => `${[...entry.message.keywords].sort().join(' ')} ${entry.isDeleted}`;
  const before = text();
  const now = entry.message.keywords;
  const isAllowed = (keyword: string) => !allowed || (keyword === '$seen' ? allowed.seen : allowed.others);
  if (mode === 'replace') for (const keyword of [...now]) if (isAllowed(keyword)) now.delete(keyword);
  for (const keyword of step.keywords.filter(isAllowed)) mode === 'remove' ? now.delete(keyword) : now.add(keyword);
  if (allowed && !allowed.deleted) return text() !== before;
  if (mode === 'replace') entry.isDeleted = step.deleted;
  else if (step.deleted) entry.isDeleted = mode === 'add';
  return text() !== before;
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
      const { mode, deleted, allowed, back } = step;
      const id = await idOf(room, name);
      const before = exists(name) ? await room.mail.entries(account, id) : [];
      const unchangedSince = back === undefined ? undefined : Math.max(0, (await room.mail.usage(account)).modseq - back);
      const change = {
        mode,
        keywords: step.keywords,
        deleted,
        ...(allowed && { allowed }),
        ...(unchangedSince === undefined ? {} : { unchangedSince }),
      };
      const done = await outcome(room.mail.changeFlags(account, id, uids, change));
      if (!exists(name)) return void (uids.length > 0 && expect(done).toBe('no-mailbox'));
      if (typeof done === 'string') throw new Error(done);
      const refused = before.filter(
        ({ uid, modseq }) => uids.includes(uid) && modseq > (unchangedSince ?? Number.POSITIVE_INFINITY),
      );
      expect(done.modified).toEqual(refused.map(({ uid }) => uid));
      const changed = new Set<number>();
      for (const uid of uids) {
        const entry = model.mailboxes.get(name)!.entries.get(uid);
        if (!entry || done.modified.includes(uid)) continue;
        if (changeInModel(entry, step)) changed.add(uid);
      }
      // What is answered is what is there; what stayed as it was has its modseq yet.
      const after = await room.mail.entries(account, id);
      const asked = after.filter(({ uid }) => uids.includes(uid));
      expect(done.uids).toEqual(asked.map(({ uid }) => uid));
      const stateOf = ({ keywords, isDeleted, modseq }: FlagState) => ({ keywords, isDeleted, modseq });
      expect(done.states.map(stateOf)).toEqual(asked.map(stateOf));
      expect(done.entries).toEqual(asked);
      before.forEach(({ uid, modseq }, at) => {
        if (changed.has(uid)) expect(after[at]!.modseq).toBeGreaterThan(modseq);
        else expect(after[at]!.modseq).toBe(modseq);
      });
      return;
    }
    case 'settle': {
      const name = names[step.in]!;
      const { modseq } = await room.mail.usage(account);
      const context = { gate: room.mail.gate, kv: room.kv, keysOf: (id: string) => new AccountKeys(id) };
      await settleStep(context, account, await idOf(room, name), step.entries);
      return expect((await room.mail.usage(account)).modseq).toBe(modseq);
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
    expect([...index.uids()].map((uid) => index.get(uid))).toEqual(stored);
    for (const message of await room.mail.messages(
      account,
      stored.map(({ emailId }) => emailId),
    )) {
      const entry = stored.find(({ emailId }) => emailId === message!.id)!;
      expect(message!.keywords).toEqual(entry.keywords);
      if (!seen.has(message!.id)) links.push(`${message!.blobId}/${message!.id}`);
      seen.add(message!.id);
    }
  }
  expect(await blobLinks(room.kv, account)).toEqual(links.sort());
  expect((await room.mail.mailboxes(account)).map(({ mailbox }) => mailbox.name).sort()).toEqual(
    [...model.mailboxes.keys()].sort(),
  );
}

/** What `store check` says of mail and blobs; there is no directory here. */
async function findings({ kv, blobs }: Room) {
  const { findings } = await checkStore({ kv, blobs, clock: impatientClock, logger: silentLogger });
  return findings.filter(({ area }) => area === 'mail' || area === 'blobs');
}

interface RunOptions {
  faults?: MemoryFaultOptions;
  /** Changes of flags by range, and a second node, which does every other step. */
  ranges?: boolean;
}

/** Sets of changes with a range in them. */
let rangesSeen = 0;
/** Small bounds, so that they are met. */
const rangeSettings = { minUids: 1, maxRanges: 3, maxBytes: 300, settleDelayMs: 5, settlePauseMs: 1 };

function nextNode(room: Room, flagRanges: MailStoreOptions['flagRanges']): OpenMailStore {
  const { kv, blobs } = room;
  const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };
  return createMailStore({ kv, blobs, ...shared, ...(flagRanges && { flagRanges }) });
}

async function run(backend: TestBackend, steps: readonly Operation[], { faults, ranges }: RunOptions = {}): Promise<void> {
  // One node settles soon by itself, the other leaves everything as it is.
  const left = { ...rangeSettings, settleDelayMs: 1e9 };
  const room = await openRoom(backend, { ...(faults && { faults }), ...(ranges && { flagRanges: rangeSettings }) });
  const other = ranges ? nextNode(room, left) : undefined;
  const nodes = [room, ...(other ? [{ ...room, mail: other }] : [])];
  const held: MailboxIndex[] = [];
  try {
    await room.mail.ensureAccount(account);
    const model = new Model((await room.mail.mailboxes(account)).map(({ mailbox }) => mailbox.name));
    const indexes = new Map<string, MailboxIndex>();
    let { modseq } = await room.mail.usage(account);
    for (const [nth, step] of steps.entries()) {
      if (ranges && step.op === 'flags' && model.mailboxes.has(names[step.in]!)) {
        const id = await idOf(room, names[step.in]!);
        for (const { mail } of nodes) held.push(await mail.openIndex(account, id));
      }
      await apply(nodes[nth % nodes.length]!, model, step);
      const now = (await room.mail.usage(account)).modseq;
      expect(now).toBeGreaterThanOrEqual(modseq);
      const changes = await room.mail.changesSince(account, modseq);
      // Each modseq has its set; none is skipped, none comes twice.
      for (const set of changes?.sets ?? []) if (set.changes.some(({ kind }) => kind === 'flags-changed')) rangesSeen++;
      if (changes)
        expect(changes.sets.map((set) => set.modseq)).toEqual(Array.from({ length: now - modseq }, (_, n) => modseq + 1 + n));
      modseq = now;
      if (nth % 8 === 7) await compare(room, model, indexes);
    }
    await compare(room, model, indexes);
    if (other) {
      await compare({ ...room, mail: other }, model, new Map());
      expect(await findings(room)).toEqual([]);
      // Nothing but rows changes by this.
      await other.settleFlags(account);
      expect((await rowsOf(room.kv, account)).get('flag-ranges')).toBeUndefined();
      await compare(room, model, indexes);
      expect(await findings(room)).toEqual([]);
    }
    for (const index of [...indexes.values(), ...held]) index.release();
    // Nothing is left when all mail is gone.
    for (const name of model.mailboxes.keys()) {
      const id = await idOf(room, name);
      const uids = (await room.mail.entries(account, id)).map(({ uid }) => uid);
      await room.mail.expunge(account, id, uids, { onlyDeleted: false });
    }
    const rows = await rowsOf(room.kv, account);
    for (const table of ['message', 'summary', 'entry', 'thread', 'reference', 'removal', 'flag-ranges'])
      expect(rows.get(table)).toBeUndefined();
    expect(await blobLinks(room.kv, account)).toEqual([]);
  } finally {
    await other?.close();
    await room.close();
  }
}

const sequences = (maxLength: number) => fc.array(operation, { minLength: 1, maxLength, size: 'max' });
/** Begins with something to change. */
const rangeSequences = (maxLength: number) =>
  fc
    .tuple(
      fc.array(appendTo(fc.constantFrom([0], [1])), { minLength: 2, maxLength: 12 }),
      fc.array(rangeOperation, { minLength: 5, maxLength, size: 'max' }),
    )
    .map(([first, then]) => [...first, ...then]);

describe('the mail store against a model', () => {
  it('agrees on memory', async () => {
    await fc.assert(
      fc.asyncProperty(sequences(40), (steps) => run('memory', steps)),
      { numRuns: 60 },
    );
  });

  it('agrees with conflicts and unknown commits', async () => {
    const faults = { conflict: 0.1, commitUnknownApplied: 0.1, commitUnknownLost: 0.05 };
    await fc.assert(
      fc.asyncProperty(sequences(25), (steps) => run('memory', steps, { faults })),
      { numRuns: 25 },
    );
  });

  it('agrees with changes of flags by range, on two nodes', async () => {
    await fc.assert(
      fc.asyncProperty(rangeSequences(60), (steps) => run('memory', steps, { ranges: true })),
      { numRuns: 60 },
    );
    expect(rangesSeen).toBeGreaterThan(100);
  });

  it('agrees with these, conflicts and unknown commits', async () => {
    const faults = { conflict: 0.1, commitUnknownApplied: 0.1, commitUnknownLost: 0.05 };
    await fc.assert(
      fc.asyncProperty(rangeSequences(40), (steps) => run('memory', steps, { faults, ranges: true })),
      { numRuns: 25 },
    );
  });

  it('agrees on embedded', async () => {
    await fc.assert(
      fc.asyncProperty(sequences(40), (steps) => run('embedded', steps)),
      { numRuns: 5 },
    );
  });
});
