import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { blobLinks, mailboxId, newMessage, openRoom, testBackends } from './fixture.js';
import { AccountCombiner, AccountGate } from './index.js';

const account = 'a1';
const writers = 8;
const perWriter = 25;

describe.each(testBackends)('many at once on %s', (backend) => {
  it.each(['behind the gate', 'in transactions of their own'])('deliver %s: UIDs appear in order, none doubled', async (how) => {
    const room = await openRoom(backend);
    await room.mail.ensureAccount(account);
    const inbox = await mailboxId(room, account, 'INBOX');
    let running = true;

    const deliver = async (writer: number) => {
      for (let n = 0; n < perWriter; n++) {
        const message = newMessage(room, [inbox], `${writer}/${n}`);
        if (how === 'behind the gate') await room.mail.append(account, [message]);
        else {
          const notice = await room.kv.transact(async (tx) => {
            const changes = await room.mail.openWriter(tx, account);
            await changes.insertMessage(message);
            return changes.finish();
          });
          room.mail.announce(notice);
        }
      }
    };
    const flagging = (async () => {
      for (let turn = 0; running; turn++) {
        const keywords = [`k${turn % 3}`];
        const mode = turn % 2 === 0 ? ('add' as const) : ('remove' as const);
        await room.mail.changeFlags(account, inbox, [1, 2, 3, turn % 200], { mode, keywords, deleted: false });
        // The memory store answers without the event loop; timers of others must have their turn.
        await nextTurn();
      }
    })();
    // Whoever sees a UID sees all below it: nothing is removed here.
    const watching = (async () => {
      const index = await room.mail.openIndex(account, inbox);
      let seen = 0;
      while (running) {
        await index.refresh();
        const uids = index.uids();
        expect(uids.length).toBe(uids.at(-1) ?? 0);
        expect(uids.length).toBeGreaterThanOrEqual(seen);
        seen = uids.length;
        const entries = await room.mail.entries(account, inbox);
        expect(entries.length).toBe(entries.at(-1)?.uid ?? 0);
        expect(entries.length).toBeGreaterThanOrEqual(seen);
        await nextTurn();
      }
      await index.refresh();
      expect([...index.uids()].map((uid) => index.get(uid))).toEqual(await room.mail.entries(account, inbox));
      index.release();
    })();

    await Promise.all(Array.from({ length: writers }, (_, writer) => deliver(writer)));
    running = false;
    await Promise.all([flagging, watching]);
    const entries = await room.mail.entries(account, inbox);
    expect(entries).toHaveLength(writers * perWriter);
    expect(new Set(entries.map(({ emailId }) => emailId)).size).toBe(writers * perWriter);
    expect(await blobLinks(room.kv, account)).toHaveLength(writers * perWriter);
    expect((await room.mail.recount(account)).differences).toEqual([]);
    await room.close();
  });
});

describe('the account gate', () => {
  it('runs one at a time per account, in order, through failures, and forgets idle accounts', async () => {
    const gate = new AccountGate();
    const steps: string[] = [];
    const work = (name: string, fails = false) =>
      gate.runExclusive('a', async () => {
        steps.push(`${name}+`);
        await Promise.resolve();
        steps.push(`${name}-`);
        if (fails) throw new Error(name);
        return name;
      });
    const outcomes = await Promise.allSettled([work('1'), work('2', true), work('3')]);
    expect(steps).toEqual(['1+', '1-', '2+', '2-', '3+', '3-']);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    await Promise.resolve();
    expect(gate.busyAccounts).toBe(0);
  });

  it('combines what waits, within its bounds, and splits what fails together', async () => {
    const batches: number[][] = [];
    const combiner = new AccountCombiner<number, number>({
      gate: new AccountGate(),
      maxItems: 4,
      maxBytes: 100,
      bytesOf: (item) => item,
      shouldSplit: () => true,
      run: async (_, items) => {
        batches.push(items);
        await Promise.resolve();
        if (items.includes(13)) throw new Error('unlucky');
        return items.map((item) => (item === 7 ? { error: new Error('seven') } : { value: item * 2 }));
      },
    });
    const outcomes = await Promise.allSettled([1, 2, 3, 4, 5, 7, 60, 60, 13, 1].map((item) => combiner.submit('a', item)));
    expect(outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : 'failed'))).toEqual([
      2,
      4,
      6,
      8,
      10,
      'failed',
      120,
      120,
      'failed',
      2,
    ]);
    expect(batches).toEqual([[1, 2, 3, 4], [5, 7, 60], [60, 13, 1], [60], [13], [1]]);
  });
});
