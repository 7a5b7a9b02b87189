import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../blobs/index.js';
import { MemoryDatabase, openMemoryStore } from '../kv/index.js';
import { mailboxId, newMessage, until } from './fixture.js';
import { createMailStore } from './index.js';

const account = 'a1';

/** Two nodes on one database. */
async function twoNodes() {
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
    return { kv, blobs, mail: createMailStore({ ...shared, blobs }) };
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
