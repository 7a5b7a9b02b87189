import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../blobs/index.js';
import { type KvStore, type KvTransaction, type KvWatch, MemoryDatabase, openMemoryStore } from '../kv/index.js';
import { mailboxId, newMessage, until } from './fixture.js';
import { createMailStore } from './index.js';

const account = 'a1';

/** The store, with watches that never fire: what is heard then was heard through hints. */
function withoutWatches(kv: KvStore): KvStore {
  const never: KvWatch = { fired: new Promise(() => undefined), cancel: () => undefined };
  const replacing = <T extends object>(target: T, replaced: Partial<T>): T =>
    new Proxy(target, {
      get: (_, name) => {
        const value = Reflect.get(name in replaced ? replaced : target, name, target) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  const deaf = (tx: KvTransaction) => replacing(tx, { watch: () => never });
  return replacing(kv, { transact: (body, options) => kv.transact((tx) => body(deaf(tx)), options) });
}

/** Two nodes on one database. */
async function twoNodes({ hasWatches = true } = {}) {
  const database = new MemoryDatabase({ clock: systemClock });
  let sleeps = 0;
  const clock = {
    ...systemClock,
    sleep: (delayMs: number, signal?: AbortSignal) => {
      sleeps++;
      return systemClock.sleep(Math.min(delayMs, 20), signal);
    },
  };
  const nodes = [0, 1].map(() => {
    const kv = openMemoryStore({ database });
    const shared = { kv, clock, random: systemRandom, logger: silentLogger };
    const blobs = createBlobStore(shared);
    const mail = createMailStore({ ...shared, blobs, kv: hasWatches ? kv : withoutWatches(kv) });
    return { kv, blobs, mail };
  });
  const [here, there] = [nodes[0]!, nodes[1]!];
  await here.mail.ensureAccount(account);
  const inbox = await mailboxId(here, account, 'INBOX');
  const close = async () => {
    for (const { mail, kv } of nodes) {
      await mail.close();
      await kv.close();
    }
  };
  return { here, there, inbox, close, sleeps: () => sleeps };
}

describe('change notices', () => {
  it('come for changes of this node and of others, and index users see those', async () => {
    const { here, there, inbox, close } = await twoNodes();
    const index = await there.mail.openIndex(account, inbox);
    const heard: number[] = [];
    const stop = there.mail.onChange(account, ({ modseq }) => heard.push(modseq));
    for (let n = 0; n < 20; n++) {
      const node = n % 2 === 0 ? here : there;
      await node.mail.append(account, [newMessage(node, [inbox], `${n}`)]);
      const { modseq } = await node.mail.usage(account);
      await until(() => heard.includes(modseq));
      await index.refresh();
      expect(index.size).toBe(n + 1);
    }
    expect(heard).toEqual([...heard].sort((a, b) => a - b));
    stop();
    stop();
    const before = heard.length;
    await there.mail.append(account, [newMessage(there, [inbox], 'unheard')]);
    await here.mail.append(account, [newMessage(here, [inbox], 'unheard')]);
    await systemClock.sleep(20);
    expect(heard.length).toBe(before);
    await close();
  });

  it('are told of changes that follow closely on one another without a look for each, and none of others is lost', async () => {
    const database = new MemoryDatabase({ clock: systemClock });
    const asleep: (() => void)[] = [];
    const clock = {
      ...systemClock,
      monotonicMs: () => 1_000,
      sleep: (_: number, signal?: AbortSignal) =>
        new Promise<void>((resolve, reject) => {
          asleep.push(resolve);
          signal?.addEventListener('abort', () => reject(signal.reason as Error));
        }),
    };
    let looks = 0;
    const [here, there] = [clock, systemClock].map((its) => {
      const kv = openMemoryStore({ database });
      const shared = { clock: its, random: systemRandom, logger: silentLogger };
      const blobs = createBlobStore({ ...shared, kv });
      const transact: KvStore['transact'] = (body, options) => {
        if (options?.label === 'mail-watch') looks++;
        return kv.transact(body, options);
      };
      const counting = Object.assign(Object.create(kv) as KvStore, { transact, read: kv.read.bind(kv) });
      return { kv, blobs, mail: createMailStore({ ...shared, kv: counting, blobs }) };
    }) as [Awaited<ReturnType<typeof twoNodes>>['here'], Awaited<ReturnType<typeof twoNodes>>['here']];
    await here.mail.ensureAccount(account);
    const inbox = await mailboxId(here, account, 'INBOX');
    const heard: number[] = [];
    here.mail.onChange(account, ({ modseq }) => heard.push(modseq));
    await until(() => looks === 1 && heard.length > 0);
    const first = heard.at(-1)!;
    for (let n = 1; n <= 5; n++) {
      await here.mail.append(account, [newMessage(here, [inbox], `${n}`)]);
      expect(heard.at(-1)).toBe(first + n);
    }
    await until(() => asleep.length === 1);
    expect(looks).toBe(1);
    // While no watch stands.
    await there.mail.append(account, [newMessage(there, [inbox], 'from elsewhere')]);
    asleep[0]!();
    await until(() => heard.at(-1) === first + 6);
    expect(looks).toBe(2);
    for (const { mail, kv } of [here, there]) {
      await mail.close();
      await kv.close();
    }
  });

  it('loses none that came before the watch stood', async () => {
    const { here, there, inbox, close } = await twoNodes();
    const heard: number[] = [];
    there.mail.onChange(account, ({ modseq }) => heard.push(modseq));
    await here.mail.append(account, [newMessage(here, [inbox], 'x')]);
    const { modseq } = await here.mail.usage(account);
    await until(() => heard.includes(modseq));
    await close();
  });

  it('survive an outage of the store without spinning, and a listener that fails', async () => {
    const { here, there, inbox, close, sleeps } = await twoNodes();
    const heard: number[] = [];
    there.mail.onChange(account, () => {
      throw new Error('a broken listener');
    });
    there.mail.onChange(account, ({ modseq }) => heard.push(modseq));
    await until(() => heard.length > 0);
    there.kv.faults.outage = true;
    await here.mail.append(account, [newMessage(here, [inbox], 'x')]);
    const { modseq } = await here.mail.usage(account);
    await until(() => sleeps() >= 2);
    there.kv.faults.outage = false;
    await until(() => heard.includes(modseq));
    expect(sleeps()).toBeLessThan(50);
    await close();
  });

  it('come when the account is removed by another node', async () => {
    const { here, there, close } = await twoNodes();
    let heard = 0;
    there.mail.onChange(account, () => heard++);
    await until(() => heard === 1);
    await here.mail.removeAccount(account);
    await until(() => heard > 1);
    await close();
  });
});

describe('hints between nodes', () => {
  async function deafNodes() {
    const nodes = await twoNodes({ hasWatches: false });
    let reads = 0;
    const read = nodes.there.kv.read.bind(nodes.there.kv);
    nodes.there.kv.read = ((...args: Parameters<typeof read>) => {
      if (args[1]?.label === 'mail-look') reads++;
      return read(...args);
    }) as typeof read;
    const heard: number[] = [];
    const stop = nodes.there.mail.onChange(account, ({ modseq }) => heard.push(modseq));
    await until(() => heard.length === 1);
    const append = async () => {
      await nodes.here.mail.append(account, [newMessage(nodes.here, [nodes.inbox], 'x')]);
      return (await nodes.here.mail.usage(account)).modseq;
    };
    return { ...nodes, heard, stop, append, reads: () => reads };
  }

  it('wake those who listen, and what they read then is there', async () => {
    const { here, there, inbox, heard, append, close } = await deafNodes();
    const told: number[] = [];
    here.mail.onLocalChange(({ accountId, modseq }) => {
      told.push(modseq);
      there.mail.heard({ accountId, modseq });
    });
    const index = await there.mail.openIndex(account, inbox);
    for (let n = 0; n < 10; n++) {
      const modseq = await append();
      await until(() => heard.includes(modseq));
      await index.refresh();
      expect(index.size).toBe(n + 1);
    }
    expect(told).toHaveLength(10);
    await close();
  });

  it('keep no true notice back when they are forged, and cost nothing when they are old or nobody listens', async () => {
    const { there, heard, append, reads, stop, close } = await deafNodes();
    there.mail.heard({ accountId: account, modseq: Number.MAX_SAFE_INTEGER });
    await until(() => reads() === 1);
    await systemClock.sleep(5);
    expect(heard).toHaveLength(1);
    const first = await append();
    there.mail.heard({ accountId: account, modseq: first });
    await until(() => heard.includes(first));
    there.mail.heard({ accountId: account, modseq: first });
    there.mail.heard({ accountId: account, modseq: 0 });
    there.mail.heard({ accountId: 'nobody', modseq: 1_000 });
    await systemClock.sleep(5);
    expect(reads()).toBe(2);
    expect(heard).toHaveLength(2);
    // A hint that is newer than what is told, and older than what there is.
    await append();
    const last = await append();
    there.mail.heard({ accountId: account, modseq: last - 1 });
    await until(() => heard.includes(last));
    stop();
    there.mail.heard({ accountId: account, modseq: last + 1 });
    await systemClock.sleep(5);
    expect(reads()).toBe(3);
    await close();
  });

  it('that were lost are made up for, for all accounts in few reads, also after an outage', async () => {
    const { here, there, heard, append, reads, close } = await deafNodes();
    const others = Array.from({ length: 600 }, (_, n) => `other${n}`);
    let first = 0;
    for (const other of others) there.mail.onChange(other, () => first++);
    await until(() => first === others.length);
    const modseq = await append();
    there.kv.faults.outage = true;
    there.mail.recheckWatched();
    await systemClock.sleep(30);
    expect(heard).toHaveLength(1);
    there.kv.faults.outage = false;
    await until(() => heard.includes(modseq));
    // The other accounts' turn may still be to come.
    let before = 0;
    while (before !== reads()) {
      before = reads();
      await systemClock.sleep(20);
    }
    there.mail.recheckWatched();
    await until(() => reads() === before + 3);
    await systemClock.sleep(5);
    // None of them has changed: none is told.
    expect(reads()).toBe(before + 3);
    expect(first).toBe(others.length);
    expect(heard).toHaveLength(2);
    await here.mail.ensureAccount('other7');
    there.mail.recheckWatched();
    await until(() => first === others.length + 1);
    await close();
  });

  it('tell of a removed account once, and of one that is made again', async () => {
    const { here, there, heard, reads, close } = await deafNodes();
    const hint = { accountId: account, modseq: Number.MAX_SAFE_INTEGER };
    await here.mail.removeAccount(account);
    for (let n = 1; n <= 3; n++) {
      there.mail.heard(hint);
      await until(() => reads() === n);
      await systemClock.sleep(2);
    }
    expect(heard).toHaveLength(2);
    await here.mail.ensureAccount(account);
    there.mail.heard(hint);
    await until(() => heard.length === 3);
    expect(heard.at(-1)).toBe((await here.mail.usage(account)).modseq);
    await close();
  });

  it('go out for every way of changing an account, once for each, unless nobody wants them', async () => {
    const { here, inbox, close } = await twoNodes();
    const told: { accountId: string; modseq: number }[] = [];
    const broken = here.mail.onLocalChange(() => {
      throw new Error('a broken listener');
    });
    const stop = here.mail.onLocalChange((notice) => told.push(notice));
    const { mail } = here;
    const changes: (() => Promise<unknown>)[] = [
      () => mail.append(account, [newMessage(here, [inbox], 'x')]),
      () => mail.changeFlags(account, inbox, [1], { mode: 'add', keywords: ['\\Seen'], deleted: true }),
      async () => mail.copy(account, inbox, [1], await mailboxId(here, account, 'Trash')),
      () => mail.expunge(account, inbox, [1]),
      () => mail.createMailbox(account, ['A']),
      () => mail.renameMailbox(account, ['A'], ['B']),
      () => mail.setSubscribed(account, ['B'], true),
      () => mail.deleteMailbox(account, ['B']),
      () =>
        here.kv
          .transact(async (tx) => {
            const writer = await mail.openWriter(tx, account);
            await writer.insertMessage(newMessage(here, [inbox], 'y'));
            return writer.finish();
          })
          .then((notice) => mail.announce(notice)),
      () => mail.ensureAccount('a2'),
      () => mail.removeAccount(account),
    ];
    for (const [n, change] of changes.entries()) {
      await change();
      expect(told).toHaveLength(n + 1);
    }
    expect(told.map(({ accountId }) => accountId).filter((id) => id !== account)).toEqual(['a2']);
    const modseqs = told.filter(({ accountId }) => accountId === account).map(({ modseq }) => modseq);
    expect(modseqs).toEqual([...new Set(modseqs)].sort((one, other) => one - other));
    stop();
    broken();
    await mail.ensureAccount('a3');
    expect(told).toHaveLength(changes.length);
    await close();
  });

  it('of a change that may not have been made keep no true notice back', async () => {
    const { here, inbox, close } = await twoNodes({ hasWatches: false });
    const heard: number[] = [];
    const told: number[] = [];
    here.mail.onChange(account, ({ modseq }) => heard.push(modseq));
    here.mail.onLocalChange(({ modseq }) => told.push(modseq));
    const { modseq } = await here.mail.usage(account);
    await until(() => heard.includes(modseq));
    here.mail.announcePerhaps(undefined);
    here.mail.announcePerhaps({ accountId: account, modseq: modseq + 1 });
    expect(told).toEqual([modseq + 1]);
    expect(heard).toEqual([modseq]);
    await here.mail.append(account, [newMessage(here, [inbox], 'a')]);
    await until(() => heard.includes(modseq + 1));
    await close();
  });

  it('go out for a removal whose commit was unknown and had been made', async () => {
    const { here, close } = await twoNodes();
    const told: number[] = [];
    here.mail.onLocalChange(({ modseq }) => told.push(modseq));
    here.kv.faults.nextCommit = 'applied';
    await here.mail.removeAccount(account);
    expect(told).toHaveLength(1);
    await close();
  });
});
