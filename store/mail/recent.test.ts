import { describe, expect, it } from 'vitest';
import { systemClock, type Timer } from '../../ops/telemetry/index.js';
import { mailboxId, newMessage, openRoom, type Room, rowsOf, testBackends } from './fixture.js';
import { accountKeysCache } from './keys.js';

const account = 'recent0000000a';
const keysOf = accountKeysCache();

/** Timers run when told to. */
function handClock() {
  const waiting = new Set<() => void>();
  const setTimer = (_delayMs: number, callback: () => void): Timer => {
    const run = () => {
      waiting.delete(run);
      callback();
    };
    waiting.add(run);
    return { cancel: () => waiting.delete(run) };
  };
  const fire = () => {
    for (const run of [...waiting]) run();
  };
  return { clock: { ...systemClock, setTimer }, waiting, fire };
}

async function fill(room: Room, count: number): Promise<string> {
  await room.mail.ensureAccount(account);
  const inbox = await mailboxId(room, account, 'INBOX');
  for (let i = 0; i < count; i++) await room.mail.append(account, [newMessage(room, [inbox], `message ${i}`)]);
  return inbox;
}

const storedMark = async (room: Room, inbox: string) =>
  (await room.kv.read((reads) => reads.get(keysOf(account).recent(inbox))))?.readUInt32BE(0);

describe.each(testBackends)('what is recent, on %s', (backend) => {
  it('belongs to the first who selects to write, and to nobody after', async () => {
    const room = await openRoom(backend);
    try {
      const inbox = await fill(room, 3);
      const { recent } = room.mail;
      expect(await recent.from(account, inbox)).toBe(1);
      expect(await recent.from(account, inbox)).toBe(1);
      const first = await recent.hold(account, inbox, 4);
      expect(first.from).toBe(1);
      expect(await storedMark(room, inbox)).toBe(4);
      const second = await recent.hold(account, inbox, 4);
      expect(second.from).toBe(4);
      first.hold.release();
      second.hold.release();
      second.hold.release();
      expect(await recent.from(account, inbox)).toBe(4);
      expect((await recent.hold(account, inbox, 6)).from).toBe(4);
    } finally {
      await room.close();
    }
  });

  it('is given to one of many who come at the same time', async () => {
    const room = await openRoom(backend);
    try {
      const inbox = await fill(room, 2);
      const held = await Promise.all(Array.from({ length: 10 }, () => room.mail.recent.hold(account, inbox, 3)));
      expect(held.filter(({ from }) => from === 1)).toHaveLength(1);
      expect(held.filter(({ from }) => from === 3)).toHaveLength(9);
    } finally {
      await room.close();
    }
  });

  it('is given to one session of this node while several stay, with one write for many arrivals', async () => {
    const { clock, waiting, fire } = handClock();
    const room = await openRoom(backend, { clock });
    try {
      const inbox = await fill(room, 0);
      const { recent } = room.mail;
      const one = await recent.hold(account, inbox, 1);
      const other = await recent.hold(account, inbox, 1);
      const before = waiting.size;
      expect(one.hold.claim(2)).toBe(1);
      expect(other.hold.claim(2)).toBe(2);
      expect(other.hold.claim(5)).toBe(2);
      expect(one.hold.claim(5)).toBe(5);
      expect(waiting.size).toBe(before + 1);
      expect(await storedMark(room, inbox)).toBe(1);
      expect(await recent.from(account, inbox)).toBe(5);
      fire();
      await room.mail.idle();
      expect(await storedMark(room, inbox)).toBe(5);
    } finally {
      await room.close();
    }
  });

  it('is written when the last session leaves, and when the store is closed', async () => {
    const room = await openRoom(backend);
    try {
      const inbox = await fill(room, 0);
      const { recent } = room.mail;
      const one = await recent.hold(account, inbox, 1);
      one.hold.claim(3);
      one.hold.release();
      await room.mail.idle();
      expect(await storedMark(room, inbox)).toBe(3);
      const two = await recent.hold(account, inbox, 3);
      two.hold.claim(9);
      await room.mail.close();
      expect(await storedMark(room, inbox)).toBe(9);
    } finally {
      await room.close();
    }
  });

  it('is nothing in a mailbox without a mark, until it is selected', async () => {
    const room = await openRoom(backend);
    try {
      const inbox = await fill(room, 2);
      await room.kv.transact(async (tx) => tx.clear(keysOf(account).recent(inbox)));
      const { recent } = room.mail;
      expect(await recent.from(account, inbox)).toBeUndefined();
      expect((await recent.hold(account, inbox, 3)).from).toBe(3);
      expect(await recent.from(account, inbox)).toBe(3);
    } finally {
      await room.close();
    }
  });

  it('goes with the mailbox and with the account, and is not written for a mailbox that is gone', async () => {
    const room = await openRoom(backend);
    try {
      await fill(room, 0);
      const made = await room.mail.createMailbox(account, ['Lists']);
      const before = (await rowsOf(room.kv, account)).get('recent')!;
      const held = await room.mail.recent.hold(account, made.id, 1);
      held.hold.claim(7);
      await room.mail.deleteMailbox(account, ['Lists']);
      held.hold.release();
      await room.mail.idle();
      expect((await rowsOf(room.kv, account)).get('recent')).toBe(before - 1);
      await room.mail.removeAccount(account);
      expect((await rowsOf(room.kv, account)).get('recent')).toBeUndefined();
    } finally {
      await room.close();
    }
  });
});

it('is told while nothing can be written', async () => {
  const room = await openRoom('memory');
  try {
    const inbox = await fill(room, 2);
    const transact = room.kv.transact;
    const { KvError } = await import('../kv/contract.js');
    room.kv.transact = () => Promise.reject(new KvError('unavailable', 'no'));
    const { from, hold } = await room.mail.recent.hold(account, inbox, 3);
    expect(from).toBe(1);
    expect((await room.mail.recent.hold(account, inbox, 3)).from).toBe(3);
    room.kv.transact = transact;
    hold.release();
    await room.mail.close();
    expect(await storedMark(room, inbox)).toBe(3);
  } finally {
    await room.close();
  }
});
