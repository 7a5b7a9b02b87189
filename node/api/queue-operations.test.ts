import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../../store/blobs/index.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import {
  createDestinations,
  createHistory,
  createQueue,
  type History,
  type HistoryEvent,
  type NodeIdentity,
  type Queue,
} from '../../store/queue/index.js';
import { allShards } from '../../store/queue/shards.js';
import { raiseFence } from '../../store/queue/test-fences.js';
import { explanationText } from '../cli/explain.js';
import { ageText, queueFaces, queueTable } from '../cli/queue.js';
import type { Explanation } from './explain-operation.js';
import { type OperationContext, OperationRefused, operations } from './operations.js';

const node: NodeIdentity = { nodeId: 'a'.repeat(32), incarnation: 1 };
type Row = Record<string, unknown>;

let nowMs: number;
let kv: ReturnType<typeof openMemoryStore>;
let queue: Queue;
let history: History;
let context: OperationContext;
let blobs: ReturnType<typeof createBlobStore>;

beforeEach(async () => {
  nowMs = Date.UTC(2030, 0, 1, 12);
  const clock = { ...systemClock, nowMs: () => nowMs };
  kv = openMemoryStore({ database: new MemoryDatabase({ clock }) });
  blobs = createBlobStore({ kv, clock, random: systemRandom, logger: silentLogger });
  history = createHistory({ kv });
  const { nodeId } = node;
  queue = createQueue({ kv, blobs, clock, random: systemRandom, logger: silentLogger, history: { book: history, nodeId } });
  const destinations = createDestinations({ kv, clock, random: systemRandom, logger: silentLogger, nodeId });
  context = { stores: { clock, kv, blobs, queue, history, destinations } as unknown as OperationContext['stores'] };
  await raiseFence(kv, node);
});

const run = <T = Row>(name: string, positionals: string[] = [], flags: Record<string, string | boolean> = {}) =>
  operations[name]!.run(context, { positionals, flags: { who: 'ann', ...flags } }) as Promise<T>;

async function enqueue(from: string, recipients: string[], change: object = {}): Promise<string> {
  const id = queue.newId();
  const domains = [...new Set(recipients.map((address) => address.split('@')[1]!))];
  const message = {
    id,
    blob: blobs.prepare(Buffer.from('Subject: x\r\n\r\nx\r\n')),
    relayOffsetBytes: 0,
    from,
    receivedAtMs: nowMs,
    expiresAtMs: nowMs + 86_400_000,
    isUtf8: false,
    body: '7BIT' as const,
    priority: 0,
    source: { protocol: 'smtp' as const },
    destinations: domains.map((domain) => ({
      domain,
      isLocal: false,
      recipients: recipients.filter((address) => address.endsWith(`@${domain}`)).map((address) => ({ address })),
    })),
    ...change,
  };
  await kv.transact((tx) => queue.enqueue(tx, message, { nowSeconds: nowMs / 1_000 }));
  return id;
}

/** One attempt for everything that is due, put off with this reply. */
async function putOff(text: string): Promise<void> {
  const { entries } = await queue.due(allShards, nowMs / 1_000, 100);
  for (const claimed of await queue.claim(node, entries)) {
    const lastReply = { code: 451, enhanced: '4.3.0', text, host: 'mx.remote.test' };
    const results = claimed.destination.recipients.map(({ address }) => ({ address, status: 'pending' as const, lastReply }));
    const input = { results, nextDueAtSeconds: nowMs / 1_000 + 600, attempted: { atMs: nowMs } };
    await kv.transact((tx) => queue.save(tx, claimed, input));
  }
}

const ids = async (flags: Record<string, string> = {}) => (await run<Row[]>('queue list', [], flags)).map(({ id }) => id);
const stateOf = async (id: string) => (await queue.show(id))?.destinations.map(({ state }) => state);

describe('queue list', () => {
  it('shows what an operator wants to know', async () => {
    const id = await enqueue('s@example.org', ['a@remote.test', 'b@remote.test', 'c@other.test'], { queueName: 'bulk' });
    await putOff('Try later');
    nowMs += 90_000;
    expect(await run('queue list')).toEqual([
      {
        id,
        from: 's@example.org',
        sizeBytes: 17,
        receivedAt: '2030-01-01T12:00:00.000Z',
        ageSeconds: 90,
        queue: 'bulk',
        states: ['due'],
        domains: ['other.test', 'remote.test'],
        pending: 3,
        attempts: 1,
        nextAttemptAt: '2030-01-01T12:10:00.000Z',
        lastReply: '451 4.3.0 Try later (mx.remote.test)',
      },
    ]);
  });

  it('filters, and goes on where it ended', async () => {
    const first = await enqueue('a@one.test', ['x@remote.test']);
    await putOff('Mailbox busy');
    nowMs += 3_600_000;
    const second = await enqueue('b@two.test', ['y@other.test'], { queueName: 'bulk' });
    await run('queue hold', [second]);
    expect(await ids()).toEqual([first, second]);
    expect(await ids({ limit: '1' })).toEqual([first]);
    expect(await ids({ after: first })).toEqual([second]);
    expect(await ids({ sender: '@TWO.test' })).toEqual([second]);
    expect(await ids({ sender: 'a@one.test' })).toEqual([first]);
    expect(await ids({ recipient: 'Y@other.test' })).toEqual([second]);
    expect(await ids({ domain: 'Remote.test' })).toEqual([first]);
    expect(await ids({ state: 'held' })).toEqual([second]);
    expect(await ids({ queue: 'bulk' })).toEqual([second]);
    expect(await ids({ 'older-than': '30m' })).toEqual([first]);
    expect(await ids({ text: 'mailbox BUSY' })).toEqual([first]);
    expect(await ids({ text: 'busy', domain: 'other.test' })).toEqual([]);
    expect(await ids({ text: 'busy', recipient: 'x@remote.test', state: 'due' })).toEqual([first]);
  });

  it.each([
    [{ state: 'odd' }, /--state is one of/],
    [{ 'older-than': 'long' }, /a time such as/],
    [{ 'older-than': '0' }, /a time such as/],
    [{ after: 'x' }, /takes an id/],
    [{ limit: 'x' }, /whole number/],
  ])('refuses %j in a sentence', async (flags, sentence) => {
    await expect(run('queue list', [], flags as never)).rejects.toThrow(sentence);
    await expect(run('queue list', [], flags as never)).rejects.toBeInstanceOf(OperationRefused);
  });
});

describe('changes', () => {
  it('meet one message, or one destination of it', async () => {
    const id = await enqueue('s@example.org', ['a@one.test', 'b@two.test']);
    expect(await run('queue hold', [id], { domain: 'two.test' })).toEqual({ id, destinations: 1 });
    expect(await stateOf(id)).toEqual(['due', 'held']);
    expect(await run('queue unhold', [id])).toEqual({ id, destinations: 1 });
    await expect(run('queue unhold', [id])).rejects.toThrow(`nothing to do for ${id}`);
    expect(await run('queue cancel', [id])).toEqual({ id, destinations: 2 });
    await expect(run('queue show', [id])).rejects.toThrow(`${id} is not in the queue`);
  });

  it('meet all that is meant, and nothing by an oversight', async () => {
    for (let i = 0; i < 5; i++) await enqueue(`s${i % 2}@example.org`, ['a@one.test', 'b@two.test']);
    for (const verb of ['retry', 'hold', 'unhold', 'cancel']) await expect(run(`queue ${verb}`)).rejects.toThrow(/takes an ID/);
    await expect(run('queue hold', ['x'], { all: true })).rejects.toThrow(/takes an ID/);
    expect(await run('queue hold', [], { sender: 's0@example.org', domain: 'two.test' })).toEqual({ destinations: 3 });
    expect(await run('queue unhold', [], { all: true })).toEqual({ destinations: 3 });
    expect(await run('queue cancel', [], { sender: 's1@example.org' })).toEqual({ destinations: 4 });
    expect(await ids()).toHaveLength(3);
    expect(await run('queue cancel', [], { all: true })).toEqual({ destinations: 6 });
    expect(await ids()).toEqual([]);
  });

  it('refuse a choice that says nothing, with an id or without', async () => {
    const id = await enqueue('', ['a@one.test', 'b@two.test']);
    await putOff('Later');
    for (const name of ['sender', 'recipient', 'domain', 'state', 'queue', 'older-than', 'text']) {
      for (const value of ['', ' ', true, null, ['x']])
        await expect(run('queue cancel', [], { [name]: value as never }), `${name} ${value}`).rejects.toThrow(`--${name} says`);
    }
    for (const value of ['', null]) {
      await expect(run('queue cancel', [id], { domain: value as never })).rejects.toThrow('--domain says nothing');
      await expect(run('queue retry', [], { domain: value as never })).rejects.toThrow('--domain says nothing');
    }
    expect(await stateOf(id)).toEqual(['due', 'due']);
    expect(await run('queue cancel', [], { sender: '<>' })).toEqual({ destinations: 2 });
  });

  it('find messages by what was said of them', async () => {
    const busy = await enqueue('s@example.org', ['a@one.test']);
    await putOff('Mailbox busy');
    const other = await enqueue('s@example.org', ['a@one.test']);
    expect(await run('queue hold', [], { text: 'busy' })).toEqual({ destinations: 1 });
    expect([await stateOf(busy), await stateOf(other)]).toEqual([['held'], ['due']]);
  });

  it('leave parts alone of which something else was said, also of the same domain', async () => {
    const names = Array.from({ length: 150 }, (_, i) => `u${i}@one.test`);
    const id = await enqueue('s@example.org', names);
    const { entries } = await queue.due(allShards, nowMs / 1_000, 100);
    expect(entries).toHaveLength(2);
    for (const claimed of await queue.claim(node, entries)) {
      const lastReply = { code: 451, enhanced: '4.3.0', text: claimed.destination.part === 0 ? 'Busy' : 'Full' };
      const results = claimed.destination.recipients.map(({ address }) => ({ address, status: 'pending' as const, lastReply }));
      await kv.transact((tx) => queue.save(tx, claimed, { results, nextDueAtSeconds: nowMs / 1_000 + 600 }));
    }
    expect(await run('queue cancel', [], { text: 'BUSY' })).toEqual({ destinations: 1 });
    expect((await queue.show(id))!.destinations.map(({ part }) => part)).toEqual([1]);
  });

  it('bring the next attempt forward, and a domain that is down up again', async () => {
    const id = await enqueue('s@example.org', ['a@one.test']);
    await putOff('Later');
    expect(await run('queue retry', [id])).toEqual({ id, destinations: 1 });
    expect((await queue.due(allShards, nowMs / 1_000, 10)).entries).toHaveLength(1);
    await putOff('Later');
    const forgotten: string[] = [];
    const room = { forget: async (domain: string) => forgotten.push(domain) > 0 };
    context = { stores: { ...context.stores, destinations: room as never } };
    expect(await run('queue retry', [], { domain: 'One.test' })).toEqual({ destinations: 1 });
    expect(forgotten).toEqual(['one.test']);
  });

  it('cancel with a report that says why', async () => {
    const id = await enqueue('s@example.org', ['a@one.test']);
    await run('queue cancel', [id], { bounce: true, note: 'sent by\r\nmistake' });
    expect((await queue.show(id))!.destinations[0]!.cancelReply).toMatchObject({
      code: 550,
      enhanced: '5.3.0',
      text: 'Cancelled by the administrator of the mail system: sent by  mistake',
    });
  });

  it('send another way, and back', async () => {
    const id = await enqueue('s@example.org', ['a@one.test']);
    const route = async () => (await queue.show(id))!.destinations[0]!.route;
    await run('queue reroute', [id], { host: 'MX.other.test', port: '2525' });
    expect(await route()).toEqual({ host: 'mx.other.test', port: 2525 });
    await run('queue reroute', [], { domain: 'one.test', via: 'other.test' });
    expect(await route()).toMatchObject({ host: 'other.test', isDomain: true });
    await run('queue reroute', [id], { back: true });
    expect(await route()).toBeUndefined();
    for (const flags of [{}, { host: 'a.test', back: true }, { via: 'a.test', port: '25' }, { host: 'a b' }, { host: '-a' }])
      await expect(run('queue reroute', [id], flags as never)).rejects.toBeInstanceOf(OperationRefused);
    for (const port of ['0', '65536', 'x'])
      await expect(run('queue reroute', [id], { host: 'a.test', port })).rejects.toThrow('--port');
  });
});

describe('domains beyond ASCII', () => {
  it('are meant in whatever script they are written', async () => {
    const [written, kept] = ['B\u00fccher.test', 'xn--bcher-kva.test'];
    const destinations = [{ domain: kept, isLocal: false, recipients: [{ address: `j\u00fcrgen@${written}` }] }];
    const id = await enqueue(`a@${kept}`, [], { destinations });
    await enqueue('a@b.test', ['x@remote.test']);
    const idsOf = async (flags: Record<string, string>) => (await run<Row[]>('queue list', [], flags)).map((row) => row['id']);
    for (const name of [written, kept]) {
      expect(await idsOf({ domain: name })).toEqual([id]);
      expect(await idsOf({ recipient: `J\u00dcRGEN@${name}` })).toEqual([id]);
      expect(await idsOf({ sender: `@${name}` })).toEqual([id]);
      expect(await idsOf({ sender: `A@${name}` })).toEqual([id]);
      expect(await run('queue pause', [name])).toEqual({ paused: kept });
      expect(await run('queue resume', [name])).toEqual({ resumed: kept });
    }
    await run('queue reroute', [id], { domain: written, via: 'stra\u00dfe.test' });
    expect((await queue.show(id))!.destinations[0]!.route).toEqual({ host: 'xn--strae-oqa.test', isDomain: true });
    await expect(run('queue pause', ['%\u00fc'])).rejects.toThrow(/what is paused is/);
    expect(await run('queue pause', ['[192.0.2.1]'])).toEqual({ paused: '[192.0.2.1]' });
  });
});

describe('pauses', () => {
  it('are made, listed and lifted', async () => {
    expect(await run('queue pause', ['Remote.test'], { note: 'moving' })).toEqual({ paused: 'remote.test' });
    await run('queue pause', ['queue:bulk']);
    await run('queue pause', ['all']);
    const rows = await run<Row[]>('queue destinations');
    expect(
      rows
        .map(({ what, state, by, why }) => ({ what, state, by, why }))
        .sort((a, b) => (String(a.what) < String(b.what) ? -1 : 1)),
    ).toEqual([
      { what: '*', state: 'paused', by: 'ann', why: '' },
      { what: 'queue:bulk', state: 'paused', by: 'ann', why: '' },
      { what: 'remote.test', state: 'paused', by: 'ann', why: 'moving' },
    ]);
    expect(await run('queue resume', ['*'])).toEqual({ resumed: '*' });
    await expect(run('queue resume', ['all'])).rejects.toThrow('* is not paused');
    await expect(run('queue pause', ['queue:a b'])).rejects.toThrow(/what is paused is/);
    expect(await run('queue destinations')).toHaveLength(2);
  });
});

describe('explain', () => {
  const tell = (id: string, event: HistoryEvent) =>
    kv.transact(async (tx) => history.append(tx, id, { atMs: nowMs++, nodeId: node.nodeId, event }));

  async function story(): Promise<{ id: string; child: string }> {
    const id = await enqueue('s@example.org', ['team@here.test', 'b@two.test']);
    const child = await enqueue('s@example.org', ['m@three.test']);
    await tell(id, {
      kind: 'accepted',
      from: 's@example.org',
      recipients: ['team@here.test', 'b@two.test'],
      recipientCount: 250,
      sizeBytes: 25_000,
      protocol: 'submission',
      remoteAddress: '192.0.2.7',
      helo: 'laptop',
      login: 'ann',
      tls: 'TLSv1.3',
      messageId: '<1@laptop>',
      checks: { greylist: 'passed' },
    });
    await tell(id, { kind: 'expanded', domain: 'here.test', into: child, members: 3 });
    const result = { verdict: 'deferred', code: 451, enhanced: '4.3.0', text: 'Try \u001b[31mlater', host: 'mx.two.test' };
    await tell(id, {
      kind: 'attempt',
      domain: 'two.test',
      isLocal: false,
      attempt: 1,
      epoch: 1,
      results: [
        { address: 'b@two.test', ...result },
        { address: 'c@two.test', ...result },
      ],
      omitted: 2,
      tls: 'TLSv1.2',
      nextAttemptAtMs: nowMs + 60_000,
    });
    await tell(id, { kind: 'freed', domain: 'two.test', fromNode: 'b'.repeat(32), reason: 'dead' });
    await tell(id, { kind: 'operator', action: 'hold', by: 'ann', note: 'looking into it' });
    await tell(id, { kind: 'report', report: 'delayed', id: child, recipients: 1 });
    return { id, child };
  }

  it('tells everything in the order in which it happened', async () => {
    const { id, child } = await story();
    const found = await run<Explanation>('explain', [id]);
    expect(found).toMatchObject({ id, state: 'queued', queued: { message: { id } } });
    expect(found.children).toBeUndefined();
    const text = explanationText(found);
    const order = [
      `${id} from s@example.org`,
      'accepted by submission from 192.0.2.7 (laptop) as ann over TLSv1.3',
      'to team@here.test, b@two.test and 248 more, 25 kB',
      'checks: greylist: passed',
      `into ${child} with 3 members`,
      'attempt 1 to reach two.test over TLSv1.2',
      'b@two.test, c@two.test deferred: 451 4.3.0 Try \\u{1b}[31mlater (mx.two.test)',
      'and 2 more recipients',
      'next attempt at 2030-01-01 12:01',
      'node bbbbbbbbbbbb was declared dead',
      'operator ann held it: looking into it',
      `a report of delay on 1 recipients was sent as ${child}`,
      'now:',
      'two.test: due at',
    ];
    for (const [index, part] of order.entries()) {
      expect(text).toContain(part);
      if (index > 0) expect(text.indexOf(part)).toBeGreaterThan(text.indexOf(order[index - 1]!));
    }
    expect(text).not.toContain('\u001b');
  });

  it('follows into what was made of it, once', async () => {
    const { id, child } = await story();
    await tell(child, { kind: 'report', report: 'failed', id, recipients: 1 });
    const deep = await run<Explanation>('explain', [id], { deep: true });
    expect(deep.children?.map((one) => one.id)).toEqual([child]);
    expect(deep.children?.[0]?.children).toEqual([]);
    expect(explanationText(deep)).toMatch(new RegExp(`^ {4}${child} from`, 'm'));
  });

  it('knows what is done, and what is unknown', async () => {
    const { id } = await story();
    await run('queue cancel', [id]);
    expect(await run('explain', [id])).toMatchObject({ state: 'gone', queued: null });
    await tell(id, { kind: 'done' });
    expect(await run('explain', [id])).toMatchObject({ state: 'done' });
    await expect(run('explain', [queue.newId()])).rejects.toThrow(/nothing is known/);
    await expect(run('explain', ['<1@laptop>'])).rejects.toThrow(/no id of the queue/);
  });

  it('is shown by queue show, too', async () => {
    const { id } = await story();
    const shown = await run('queue show', [id]);
    expect(shown).toMatchObject({ message: { id }, destinations: [{}, {}], history: { length: 6 } });
    expect(queueFaces['queue show']!.print!(shown, { positionals: [id], flags: {} })).toContain('operator ann held it');
  });
});

describe('what people see', () => {
  it('is a table that fits, with a hint where there is more', async () => {
    await enqueue('', ['a@one.test']);
    const rows = await run<Row[]>('queue list');
    const lines = queueTable(rows, 1).split('\n');
    expect(lines[0]!.split(/ {2,}/)).toEqual('id,age,from,size,state,to,rcpts,tries,next,last reply'.split(','));
    expect(lines[1]).toMatch(/ <> +17 +due +one\.test /);
    expect(lines[2]).toContain(`--after ${rows[0]!['id']}`);
    expect(queueTable(rows, 2).split('\n')).toHaveLength(2);
    expect(queueTable([], 100)).toBe('(none)');
  });

  it('has ages of two units', () => {
    expect([0, 59, 60, 3_601, 90_061, 864_000, undefined].map(ageText)).toEqual(['0s', '59s', '1m', '1h', '1d 1h', '10d', '-']);
  });

  it('asks which messages are meant', () => {
    const prepare = (name: string, positionals: string[], flags = {}) => queueFaces[name]!.prepare!({ positionals, flags });
    expect(() => prepare('queue cancel', [])).toThrow(/say which/);
    expect(() => prepare('queue cancel', ['x'], { all: true })).toThrow(/either an ID/);
    expect(() => prepare('queue cancel', ['x'], { sender: 'a' })).toThrow(/either an ID/);
    expect(() => prepare('queue reroute', ['x'])).toThrow(/takes one of/);
    expect(prepare('queue hold', ['x'], { domain: 'a.test' }).flags['who']).toEqual(expect.any(String));
  });
});
