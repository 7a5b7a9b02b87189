import { afterEach, describe, expect, it } from 'vitest';
import type { Resolution } from '../../store/directory/contract.js';
import { type KvStore, MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import { type ClaimedDestination, ClaimLost } from '../../store/queue/index.js';
import { breakFence } from '../../store/queue/test-fences.js';
import { createDelivery } from './delivery.js';
import { listFields, listObstacle, withoutListFields } from './list-header.js';
import { isBounceAddress, memberReversePath } from './list-posting.js';
import { defaultListSettings, type ListSettings } from './outcome-settings.js';
import { queueLeftovers } from './testing/node.js';
import { type Bench, openBench } from './testing/outcomes.js';

const opened: Bench[] = [];
const address = 'all@example.test';
const never = new AbortController().signal;

async function open(list: Partial<ListSettings> = {}, options: Parameters<typeof openBench>[0] = {}) {
  const lists = new Map([[address, { ...defaultListSettings, ...list }]]);
  const bench = await openBench({ ...options, outcomes: { lists, ...options.outcomes } });
  opened.push(bench);
  return bench;
}

afterEach(async () => {
  for (const bench of opened.splice(0)) await bench.close();
});

const toList = (...recipients: string[]) => [
  { domain: 'example.test', isLocal: true, recipients: recipients.map((one) => ({ address: one })) },
];

/** A list of a local and two outside members. */
async function withMembers(bench: Bench, members = ['alice@example.test', 'x@one.test', 'y@two.test']) {
  await bench.account('alice@example.test', { aliases: ['al@example.test'] });
  await bench.account('boss@example.test');
  await bench.directory.createPrincipal({ kind: 'list', address, members });
}

async function deliver(bench: Bench, more: Parameters<Bench['claimOne']>[0] = {}) {
  const claimed = await bench.claimOne({ destinations: toList(address), ...more });
  await bench.delivery.deliver({ claimed }, never);
  return claimed.message.id;
}

describe('a list’s header', () => {
  it('has the list’s fields instead of others’', () => {
    const list: ListSettings = {
      posting: 'members',
      isVerp: false,
      owner: 'boss@example.test',
      name: 'Everybody "here"',
      help: 'https://example.test/help',
      archive: 'https://example.test/archive',
      subscribe: 'mailto:all-join@example.test',
      unsubscribe: { url: 'https://example.test/leave', isOneClick: true },
    };
    expect(listFields(address, list)).toBe(
      'List-Id: "Everybody \\"here\\"" <all.example.test>\r\n' +
        'List-Post: <mailto:all@example.test>\r\n' +
        'List-Help: <https://example.test/help>\r\n' +
        'List-Archive: <https://example.test/archive>\r\n' +
        'List-Subscribe: <mailto:all-join@example.test>\r\n' +
        'List-Owner: <mailto:boss@example.test>\r\n' +
        'List-Unsubscribe: <https://example.test/leave>,\r\n <mailto:boss@example.test?subject=unsubscribe%20all%40example.test>\r\n' +
        'List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n' +
        'Sender: <all@example.test>\r\nPrecedence: list\r\nX-Loop: all@example.test\r\n',
    );
    const header =
      'Received: by mx\r\nlist-id:\r\n <other.test>\r\nSubject: List-Id: x\r\nSENDER: <a@b.test>\r\nList-Unknown: kept\r\n' +
      'List-Unsubscribe: <mailto:a@b.test>,\r\n\t<https://b.test>\r\nPrecedence : bulk\r\nFrom: \xff\r\n\r\n';
    expect(withoutListFields(Buffer.from(header, 'latin1')).toString('latin1')).toBe(
      'Received: by mx\r\nSubject: List-Id: x\r\nList-Unknown: kept\r\nFrom: \xff\r\n\r\n',
    );
  });

  it('lets nothing break out of its fields, and asks for one click only over https', () => {
    const fields = listFields('a?b%c@example.test', {
      ...defaultListSettings,
      name: 'x\r\nBcc: y@z.test',
      help: 'https://x>\r\nBcc: y',
      unsubscribe: { url: 'http://example.test/leave', isOneClick: true },
    });
    expect(fields).not.toMatch(/^Bcc/m);
    expect(fields).not.toContain('List-Help');
    expect(fields).not.toContain('One-Click');
    expect(fields).toContain('List-Post: <mailto:a%3Fb%25c@example.test>\r\n');
  });

  it('tells loops and automatic answers', () => {
    const obstacle = (header: string) => listObstacle(Buffer.from(header), address);
    expect(obstacle('List-Id: All\r\n <ALL.example.test>\r\n\r\n')).toBe('loop');
    expect(obstacle('X-Loop: other@example.test\r\nX-Loop: all@example.test\r\n\r\n')).toBe('loop');
    expect(obstacle('Delivered-To: All@example.test\r\n\r\n')).toBe('loop');
    expect(obstacle('Auto-Submitted: auto-replied (vacation)\r\n\r\n')).toBe('auto-reply');
    expect(obstacle('Auto-Submitted: auto-generated\r\nSubject: X-Loop: all@example.test\r\nList-Id: <x.test>\r\n\r\n')).toBe(
      undefined,
    );
  });
});

describe('who may write to a list', () => {
  const attempts: [Partial<ListSettings>, string, boolean][] = [
    [{}, 'stranger@remote.test', true],
    [{ posting: 'members' }, 'stranger@remote.test', false],
    [{ posting: 'members' }, 'X@ONE.test', true],
    [{ posting: 'members' }, 'al@example.test', true],
    [{ posting: 'members' }, 'alice+tag@example.test', true],
    [{ posting: 'members', owner: 'boss@example.test' }, 'boss@example.test', true],
    [{ posting: 'owners', owner: 'boss@example.test' }, 'alice@example.test', false],
    [{ posting: 'owners', owner: 'boss@example.test' }, 'boss+x@example.test', true],
    [{ posting: 'owners', moderators: ['mod@remote.test'] }, 'mod@remote.test', true],
  ];

  it.each(attempts)('with %o: %s %s', async (list, from, isAllowed) => {
    const bench = await open(list);
    await withMembers(bench);
    await deliver(bench, { from });
    const made = await bench.made();
    if (isAllowed)
      return expect(made.map(({ to }) => to.toSorted())).toEqual([['alice@example.test', 'x@one.test', 'y@two.test']]);
    expect(made.map(({ to }) => to)).toEqual([[from]]);
    expect(made[0]!.bytes.toString()).toMatch(/^Status: 5\.7\.2\r$/m);
  });
});

describe('members’ copies', () => {
  it('without an owner have the reverse-path of the postmaster of their domain, whatever we are called', async () => {
    const bench = await open({}, { settings: { postmasterAddress: 'postmaster@mx.elsewhere.test' } });
    await withMembers(bench);
    const boss = await bench.directory.updatePrincipal('boss@example.test', { isAdmin: true });
    await deliver(bench);
    const copies = await bench.queue.list();
    expect(copies.map(({ message }) => message.from)).toEqual(['postmaster@example.test']);
    const back = [{ domain: 'example.test', isLocal: true, recipients: [{ address: 'postmaster@example.test' }] }];
    const claimed = await bench.claimOne({ from: '', destinations: back });
    await bench.delivery.deliver({ claimed }, never);
    expect(await bench.mailbox(boss.id)).toHaveLength(1);
  });

  it('have the owner’s reverse-path and none of the sender’s requests', async () => {
    const bench = await open({ owner: 'boss@example.test' });
    await withMembers(bench);
    const recipients = [{ address, notify: ['SUCCESS' as const, 'FAILURE' as const], orcpt: 'rfc822;a@b.test' }];
    const destinations = [{ domain: 'example.test', isLocal: true, recipients }];
    const id = await deliver(bench, { destinations, envid: 'e1', ret: 'FULL', requiresTls: true });
    const made = await bench.made();
    const copy = made.find(({ message }) => message.from !== '')!;
    expect(copy.message).toMatchObject({ from: 'boss@example.test', requiresTls: true, envid: undefined, ret: undefined });
    expect(copy.destinations.flatMap((one) => one.recipients.map(({ notify, orcpt }) => [notify, orcpt]))).toEqual(
      Array(3).fill([['FAILURE'], undefined]),
    );
    expect(copy.bytes.toString()).toMatch(/^Return-Path: <boss@example\.test>\r\nList-Id: <all\.example\.test>\r\n/);
    // RFC 3461 5.2.7.3: what the list has taken was delivered.
    expect(made.find(({ message }) => message.from === '')!.bytes.toString()).toContain('\r\nAction: delivered\r\n');
    expect((await bench.historyOf(id)).map((event) => event.kind)).toEqual(['attempt', 'expanded', 'report', 'done']);
  });

  it('of a group keep the sender and what it has asked for, but success', async () => {
    const bench = await open();
    const resolve = async (asked: string): Promise<Resolution> =>
      asked === 'team@example.test' ? { kind: 'local', targets: [], remote: ['x@one.test'] } : bench.directory.resolve(asked);
    const delivery = createDelivery({ ...bench, directory: { ...bench.directory, resolve } });
    const text = 'List-Id: <other.test>\r\nSubject: x\r\n\r\nx\r\n';
    const recipients = [{ address: 'team@example.test', notify: ['SUCCESS' as const], orcpt: 'rfc822;a@b.test' }];
    const claimed = await bench.claimOne({
      text,
      envid: 'e1',
      destinations: [{ domain: 'example.test', isLocal: true, recipients }],
    });
    await delivery.deliver({ claimed }, never);
    const made = await bench.made();
    const copy = made.find(({ message }) => message.from !== '')!;
    expect(copy.message).toMatchObject({ from: 'sender@remote.test', envid: 'e1' });
    expect(copy.destinations[0]!.recipients[0]).toMatchObject({ notify: ['NEVER'], orcpt: 'rfc822;a@b.test' });
    expect(copy.bytes.toString()).toBe(`Return-Path: <sender@remote.test>\r\n${text}`);
    expect(made.find(({ message }) => message.from === '')!.bytes.toString()).toContain('\r\nAction: expanded\r\n');
  });

  it('say that they need SMTPUTF8 where the list’s own fields do', async () => {
    const bench = await open();
    const listAddress = 'älle@example.test';
    const resolve = async (): Promise<Resolution> => ({ kind: 'local', targets: [], remote: ['x@one.test'], listAddress });
    const delivery = createDelivery({ ...bench, directory: { ...bench.directory, resolve } });
    await delivery.deliver({ claimed: await bench.claimOne({ destinations: toList(listAddress), isUtf8: true }) }, never);
    const [copy] = await bench.made();
    expect(copy!.message).toMatchObject({ isUtf8: true, body: '8BITMIME' });
    expect(copy!.bytes.toString()).toContain('List-Id: <älle.example.test>\r\n');
  });

  it('of a group count among the reports that a sender outside may get', async () => {
    const bench = await open({}, { outcomes: { maxReportsPerSenderPerHour: 1 } });
    const remote = ['x@one.test', 'y@two.test', 'z@three.test'];
    const resolve = async (asked: string): Promise<Resolution> =>
      asked === 'team@example.test' ? { kind: 'local', targets: [], remote } : bench.directory.resolve(asked);
    const delivery = createDelivery({ ...bench, directory: { ...bench.directory, resolve } });
    await delivery.deliver({ claimed: await bench.claimOne({ destinations: toList('team@example.test') }) }, never);
    const reply = { code: 550, enhanced: '5.1.1', text: 'No such user', host: 'mx' };
    const copies = await bench.claimDue();
    expect(copies).toHaveLength(3);
    for (const claimed of copies) {
      const address = claimed.destination.recipients[0]!.address;
      await bench.settle({ claimed, verdicts: [{ address, verdict: 'failed', reply }], kind: 'remote' });
    }
    expect((await bench.made()).map(({ to }) => to)).toEqual([['sender@remote.test']]);
  });

  it('name an outside member in their reverse-path, and what comes back goes to the owner alone', async () => {
    const bench = await open({ owner: 'boss@example.test', isVerp: true });
    await withMembers(bench);
    await deliver(bench);
    const made = await bench.made();
    expect(made.map(({ message, to }) => [message.from, to]).sort()).toEqual([
      ['all+bounces=x=one.test@example.test', ['x@one.test']],
      ['all+bounces=y=two.test@example.test', ['y@two.test']],
      ['boss@example.test', ['alice@example.test']],
    ]);
    const bounce = await bench.claimOne({ from: '', destinations: toList('all+bounces=x=one.test@example.test') });
    await bench.delivery.deliver({ claimed: bounce }, never);
    const boss = (await bench.directory.principal('boss@example.test'))!.id;
    expect(await bench.mailbox(boss)).toHaveLength(1);
    expect(await bench.made()).toHaveLength(3);
    expect(memberReversePath(address, `${'x'.repeat(60)}@one.test`)).toBeUndefined();
    expect(memberReversePath(address, '"a b"@one.test')).toBeUndefined();
    expect(isBounceAddress('ALL+bounces=a=b@example.test', address)).toBe(true);
    expect(isBounceAddress('all+other@example.test', address)).toBe(false);
  });

  it('are made once for two addresses of a list and for a member of a list in the list; none of reports and answers', async () => {
    const bench = await open();
    await bench.account('alice@example.test');
    await bench.directory.createPrincipal({ kind: 'list', address: 'some@example.test', members: ['x@one.test', 'z@one.test'] });
    const members = ['alice@example.test', 'x@one.test', 'some@example.test'];
    await bench.directory.createPrincipal({ kind: 'list', address, aliases: ['everybody@example.test'], members });
    await deliver(bench, { destinations: toList(address, 'everybody@example.test') });
    const made = await bench.made();
    expect(made.map(({ to }) => to.toSorted())).toEqual([['alice@example.test', 'x@one.test', 'z@one.test']]);
    await deliver(bench, { from: '' });
    await deliver(bench, { text: 'Auto-Submitted: auto-replied\r\n\r\nI am away\r\n' });
    expect(await bench.made()).toHaveLength(1);
  });
});

describe('two addresses of a list', () => {
  it('give one copy, also when a full mailbox beside them makes each recipient be served alone', async () => {
    const bench = await open();
    await bench.account('full@example.test', { quotaLimitBytes: 10 });
    const aliases = ['everybody@example.test'];
    await bench.directory.createPrincipal({ kind: 'list', address, aliases, members: ['x@one.test'] });
    const id = await deliver(bench, { destinations: toList(address, 'full@example.test', 'everybody@example.test') });
    expect((await bench.made(id)).map(({ to }) => to)).toEqual([['x@one.test']]);
    const statuses = (await bench.queue.show(id))!.destinations[0]!.recipients.map(({ status }) => status);
    expect(statuses).toEqual(['expanded', 'pending', 'expanded']);
  });
});

const members = Array.from({ length: 45 }, (_, i) => `member${i}@d${i % 3}.test`);

/** A list of outside members that is not in the directory. */
function withManyMembers(bench: Bench, kv: KvStore, remote = members) {
  const resolve = async (asked: string): Promise<Resolution> =>
    asked === address ? { kind: 'local', targets: [], remote, listAddress: address } : bench.directory.resolve(asked);
  return createDelivery({ ...bench, kv, directory: { ...bench.directory, resolve } });
}

const copies = async (bench: Bench, ...not: string[]) => (await bench.made(...not)).flatMap(({ to }) => to).sort();

describe('a list of many members', () => {
  it('is expanded in batches, each member once, through conflicts and unknown commits', async () => {
    const bench = await open({}, { outcomes: { membersPerBatch: 10 } });
    const delivery = withManyMembers(bench, bench.kv);
    Object.assign((bench.kv as MemoryStore).faults, { conflict: 0.2, commitUnknownApplied: 0.2, commitUnknownLost: 0.2 });
    for (let i = 0; i < 8; i++) {
      const claimed = await bench.claimOne({ destinations: toList(address) });
      await delivery.deliver({ claimed }, never).catch((error: unknown) => expect(error).toBeInstanceOf(ClaimLost));
    }
    (bench.kv as MemoryStore).faults.clear();
    const made = await bench.made();
    expect(made).toHaveLength(8 * 5);
    expect(await copies(bench)).toEqual(members.flatMap((member) => Array(8).fill(member)).sort());
    const marks = (await queueLeftovers(bench.kv)).filter((items) => items[1] === 'expansion');
    expect(marks).toEqual([]);
  });

  it.each(['before', 'after'])('goes on with another node where a crash %s a commit has stopped it', async (moment) => {
    for (let step = 1; step <= 5; step++) {
      const database = new MemoryDatabase();
      const first = await open({}, { kv: openMemoryStore({ database }), outcomes: { membersPerBatch: 10 } });
      let left = step;
      const transact: KvStore['transact'] = async (body, options) => {
        const isBatch = ['expand', 'settle'].includes(options?.label ?? '');
        if (isBatch && left <= 0) throw new Error('crashed');
        if (isBatch && --left === 0 && moment === 'before') throw new Error('crashed');
        const value = await first.kv.transact(body, options);
        if (isBatch && left === 0) throw new Error('crashed');
        return value;
      };
      const crashing = { transact, read: (...args: Parameters<KvStore['read']>) => first.kv.read(...args) } as unknown as KvStore;
      const claimed = await first.claimOne({ destinations: toList(address) });
      const { id } = claimed.message;
      await expect(withManyMembers(first, crashing).deliver({ claimed }, never)).rejects.toThrow('crashed');
      await breakFence(first.kv, first.node.nodeId);
      const second = await open({}, { kv: openMemoryStore({ database }), outcomes: { membersPerBatch: 10 } });
      await second.queue.releaseClaimsOf(first.node.nodeId, Math.floor(second.clock.nowMs() / 1000));
      const again = (await second.claimDue()).find(({ message }) => message.id === id) as ClaimedDestination | undefined;
      // Since then a member has gone that has its copy, one has come that would have had it, and one that has not.
      const changed = [...members.filter((member) => member !== 'member0@d0.test'), 'zz@late.test'];
      const isOver = step === 5 && moment === 'after';
      expect(again === undefined).toBe(isOver);
      if (again) await withManyMembers(second, second.kv, changed).deliver({ claimed: again }, never);
      const got = await copies(second, id);
      expect(new Set(got).size).toBe(got.length);
      const wanted = isOver ? members : [...changed, ...(got.includes('member0@d0.test') ? ['member0@d0.test'] : [])];
      expect(got).toEqual([...wanted].sort());
      expect(await second.queue.show(id)).toBeUndefined();
    }
  });

  it('knows neither a sender nor an owner that is a list of too many', async () => {
    const bench = await open({ posting: 'owners', owner: 'huge@example.test', moderators: ['mod@remote.test'] });
    const { DirectoryError } = await import('../../store/directory/contract.js');
    const resolve = async (asked: string): Promise<Resolution> => {
      if (asked === 'huge@example.test') throw new DirectoryError('too-many', 'too many');
      if (asked.startsWith('all')) return { kind: 'local', targets: [], remote: ['x@one.test'], listAddress: address };
      return bench.directory.resolve(asked);
    };
    const delivery = createDelivery({ ...bench, directory: { ...bench.directory, resolve } });
    const post = async (from: string, to: string) =>
      delivery.deliver({ claimed: await bench.claimOne({ from, destinations: toList(to) }) }, never);
    await post('mod@remote.test', address);
    await post('', 'all+bounces=x=one.test@example.test');
    expect((await bench.made()).map(({ to }) => to)).toEqual([['x@one.test']]);
    await post('stranger@remote.test', address);
    expect((await bench.made()).map(({ to }) => to)).toEqual([['x@one.test'], ['stranger@remote.test']]);
  });

  it('is refused when it has more members than the directory expands', async () => {
    const bench = await open();
    const { DirectoryError } = await import('../../store/directory/contract.js');
    const resolve = async (asked: string): Promise<Resolution> => {
      if (asked === address) throw new DirectoryError('too-many', 'too many');
      return bench.directory.resolve(asked);
    };
    const delivery = createDelivery({ ...bench, directory: { ...bench.directory, resolve } });
    const claimed = await bench.claimOne({ destinations: toList(address) });
    await delivery.deliver({ claimed }, never);
    expect((await bench.made())[0]!.bytes.toString()).toContain('\r\nStatus: 5.3.4\r\n');
  });
});
