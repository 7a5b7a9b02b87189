import { afterEach, describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock } from '../../ops/telemetry/index.js';
import type { InsertedMessage } from './contract.js';
import { mailboxId, newMessage, openRoom, type Room, until } from './fixture.js';
import { AccountKeys } from './keys.js';
import { MailboxGrowth } from './mailbox-growth.js';

/** Stands still until it is moved; one timer at a time is all that is needed. */
class HandClock implements Clock {
  ms = 0;
  due: { atMs: number; callback: () => void } | undefined;
  nowMs = () => this.ms;
  monotonicMs = () => this.ms;
  sleep: Clock['sleep'] = async () => undefined;
  setTimer: Clock['setTimer'] = (delayMs, callback) => {
    this.due = { atMs: this.ms + delayMs, callback };
    return { cancel: () => (this.due = undefined) };
  };

  async advance(ms: number): Promise<void> {
    for (const end = this.ms + ms; this.ms < end; ) {
      this.ms += 100;
      if (this.due && this.due.atMs <= this.ms) {
        const { callback } = this.due;
        this.due = undefined;
        callback();
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

const inserted = (count: number, id = 'm1'): InsertedMessage[] =>
  Array.from({ length: count }, (_, at) => ({
    emailId: `e${at}`,
    threadId: 't',
    uids: [{ mailboxId: id, uid: at, uidValidity: 1 }],
  }));

function watch(fails = false) {
  const clock = new HandClock();
  const followed: string[] = [];
  const growth = new MailboxGrowth({ clock, logger: silentLogger }, 10, async (accountId, id) => {
    followed.push(`${accountId}/${id}`);
    if (fails) throw new Error('not now');
  });
  return { clock, followed, growth };
}

describe('a growing mailbox', () => {
  it('is followed once enough has come in and it is quiet', async () => {
    const { clock, followed, growth } = watch();
    growth.note('a', inserted(9));
    await clock.advance(30_000);
    expect(followed).toEqual([]);
    growth.note('a', [...inserted(1), ...inserted(3, 'm2')]);
    await clock.advance(900);
    expect(followed).toEqual([]);
    await clock.advance(1_000);
    expect(followed).toEqual(['a/m1']);
    growth.note('a', inserted(7, 'm2'));
    await clock.advance(2_000);
    expect(followed).toEqual(['a/m1', 'a/m2']);
    await growth.close();
  });

  it('is followed at last where it is never quiet, and again as it goes on', async () => {
    const { clock, followed, growth } = watch();
    for (let second = 0; second < 40; second++) {
      growth.note('a', inserted(20));
      await clock.advance(500);
    }
    expect(followed.length).toBe(1);
    await clock.advance(3_000);
    expect(followed.length).toBe(2);
    await growth.close();
  });

  it('that can not be followed stops nobody else', async () => {
    const { clock, followed, growth } = watch(true);
    growth.note('a', [...inserted(10), ...inserted(10, 'm2')]);
    await clock.advance(3_000);
    expect(followed).toEqual(['a/m1', 'a/m2']);
    await growth.close();
    growth.note('a', inserted(10));
    await clock.advance(3_000);
    expect(followed.length).toBe(2);
  });
});

describe('an import', () => {
  let room: Room;
  afterEach(() => room.close());

  it('leaves a snapshot of the index behind though nobody has opened the mailbox', async () => {
    const settings = { minMessages: 10, minChanges: 10, minIntervalMs: 60_000 };
    room = await openRoom('memory', { indexSnapshots: settings, clock: systemClock });
    await room.mail.ensureAccount('a1');
    const inbox = await mailboxId(room, 'a1', 'INBOX');
    const head = () => room.kv.read((reads) => reads.get(new AccountKeys('a1').indexHead(inbox)));
    const some = Array.from({ length: 25 }, (_, at) => newMessage(room, [inbox], `text ${at}`));
    await room.mail.append('a1', some);
    await until(async () => (await head()) !== undefined);
    const before = (await head())!;
    // Within the interval between two snapshots: growth does not wait for that.
    await room.mail.append('a1', some);
    await until(async () => !(await head())!.equals(before));
  });
});
