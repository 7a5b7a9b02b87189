import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { key, keysUnder, subspace } from '../keyspace.js';
import { type KvStore, kvLimits } from '../kv/contract.js';
import { type MemoryStore, openMemoryStore } from '../kv/index.js';
import { clearExpansionMark, readExpansionMark, setExpansionMark } from './expansions.js';
import { createHistory } from './history.js';
import type { History, HistoryEvent, HistoryRecord } from './history-contract.js';
import { historyLimits } from './history-records.js';
import { createQueueIds, firstIdAt } from './ids.js';
import { messageKey } from './records.js';

const nodeId = '0123456789abcdef0123456789abcdef';
const otherNode = 'f'.repeat(32);
const nowMs = Date.UTC(2026, 10, 22);
const dayMs = 86_400_000;

let kv: MemoryStore;
let history: History;
let id: string;

beforeEach(() => {
  kv = openMemoryStore();
  history = createHistory({ kv });
  id = createQueueIds({ ...systemClock, nowMs: () => nowMs }, systemRandom)();
});

const attempt = (change: Partial<Extract<HistoryEvent, { kind: 'attempt' }>> = {}): HistoryEvent => ({
  kind: 'attempt',
  domain: 'remote.test',
  isLocal: false,
  attempt: 1,
  epoch: 1,
  results: [{ address: 'bob@remote.test', verdict: 'relayed', code: 250, enhanced: '2.0.0', text: 'ok', host: 'mx.remote.test' }],
  omitted: 0,
  ...change,
});

const local = attempt({
  domain: 'example.test',
  isLocal: true,
  results: [{ address: 'alice@example.test', verdict: 'delivered', code: 250, enhanced: '2.1.5', text: 'Delivered to mailbox' }],
});

const accepted: HistoryEvent = {
  kind: 'accepted',
  from: 'sender@remote.test',
  recipients: ['alice@example.test'],
  recipientCount: 1,
  sizeBytes: 1234,
  protocol: 'smtp',
  remoteAddress: '192.0.2.1',
  helo: 'client.remote.test',
  tls: 'TLSv1.3',
  messageId: '<m1@remote.test>',
  checks: { greylist: 'passed', dnsbl: 'none' },
};

const samples: HistoryEvent[] = [
  accepted,
  { kind: 'freed', domain: 'remote.test', fromNode: otherNode, reason: 'handed-back' },
  { kind: 'operator', action: 'reroute', by: 'ann', note: 'their server moved' },
  attempt({ tls: 'TLSv1.3 verified', nextAttemptAtMs: nowMs + 60_000, omitted: 3 }),
  { kind: 'expanded', domain: 'example.test', into: '0'.repeat(20), members: 12 },
  { kind: 'report', report: 'delayed', id: '1'.repeat(20), recipients: 2 },
  { kind: 'done' },
];

const write = (records: HistoryRecord[], of = id) =>
  kv.transact(async (tx) => {
    for (const record of records) history.append(tx, of, record);
  });
const read = (of = id) => kv.read((reads) => history.read(reads, of));
const rows = () =>
  kv.read((reads) => reads.getRange(...(Object.values(keysUnder(subspace.queue, 'history')) as [Buffer, Buffer])));

describe('history', () => {
  it('begins with the acceptance and ends with the end, whatever the clocks of the nodes say', async () => {
    const freed: HistoryEvent = { kind: 'freed', domain: 'remote.test', fromNode: nodeId, reason: 'dead' };
    const later = attempt({ results: [], nextAttemptAtMs: nowMs });
    await kv.transact(async (tx) => {
      // Accepted by a node that is ahead, put off by one that is right; a node that is far ahead frees what one that is behind brings to its end.
      history.append(tx, id, { atMs: nowMs + 5_000, nodeId, event: accepted });
      history.append(tx, id, { atMs: nowMs, nodeId: otherNode, event: later });
      history.append(tx, id, { atMs: nowMs + 60_000, nodeId, event: freed });
      history.append(tx, id, { atMs: nowMs - 5_000, nodeId: otherNode, event: attempt({ attempt: 2 }) }, { kind: 'done' });
    });
    expect((await read()).map(({ event, atMs }) => [event.kind, atMs - nowMs])).toEqual([
      ['accepted', 5_000],
      ['attempt', 0],
      ['freed', 60_000],
      ['attempt', -5_000],
      ['done', -5_000],
    ]);
  });

  it('tells what happened in the order of time, and of one moment in the order in which things happen', async () => {
    const records = samples.map((event, i) => ({ atMs: nowMs + (i < 2 ? 0 : 5), nodeId: i % 2 ? nodeId : otherNode, event }));
    await write([...records].reverse());
    expect(await read()).toEqual(records);
  });

  it('keeps several events of one transaction in one row', async () => {
    await kv.transact(async (tx) => history.append(tx, id, { atMs: nowMs, nodeId, event: local }, { kind: 'done' }));
    expect(await rows()).toHaveLength(1);
    expect((await read()).map(({ event }) => event)).toEqual([local, { kind: 'done' }]);
  });

  it('writes the same row when a transaction runs again, and another for another event or node', async () => {
    const record = { atMs: nowMs, nodeId, event: attempt() };
    await write([record]);
    await write([record]);
    expect(await read()).toEqual([record]);
    await write([
      { ...record, nodeId: otherNode },
      { ...record, event: attempt({ epoch: 2 }) },
    ]);
    expect(await read()).toHaveLength(3);
  });

  it('is small for what happens to nearly every message', async () => {
    await kv.transact(async (tx) => history.append(tx, id, { atMs: nowMs, nodeId, event: local }, { kind: 'done' }));
    const [row] = await rows();
    expect(row!.value.length).toBeLessThan(80);
    expect(row!.key.length).toBeLessThan(60);
  });

  it('names a hundred recipients and counts the rest; replies that are the same are kept once', async () => {
    const results = Array.from({ length: 250 }, (_, i) => ({
      address: `user${i}@remote.test`,
      verdict: 'deferred',
      code: 451,
      enhanced: '4.7.1',
      text: 'Greylisted, try again later'.repeat(10),
      host: 'mx.remote.test',
    }));
    await write([{ atMs: nowMs, nodeId, event: attempt({ results }) }]);
    expect((await read())[0]!.event).toEqual(attempt({ results: results.slice(0, 100), omitted: 150 }));
    expect((await rows())[0]!.value.length).toBeLessThan(4_000);
  });

  it('fits into a value whatever it is told', async () => {
    const text = fc.string({ unit: 'binary', maxLength: 3_000 });
    const result = fc.record({ address: text, verdict: text, code: fc.nat(999), enhanced: text, text, host: text });
    await fc.assert(
      fc.asyncProperty(fc.array(result, { maxLength: 120 }), fc.dictionary(text, text), async (results, checks) => {
        const tx = { set: (_key: Uint8Array, value: Uint8Array) => expect(value.length).toBeLessThan(kvLimits.maxValueBytes) };
        history.append(tx as never, id, { atMs: nowMs, nodeId, event: attempt({ results }) });
        history.append(tx as never, id, { atMs: nowMs, nodeId, event: { ...accepted, checks } as HistoryEvent });
      }),
      { numRuns: 60 },
    );
    expect(historyLimits.maxRowBytes).toBeLessThan(kvLimits.maxValueBytes);
  });

  it('passes over rows and events of a later version', async () => {
    await write([{ atMs: nowMs, nodeId, event: attempt() }]);
    await kv.transact(async (tx) => {
      tx.set(key(subspace.queue, 'history', id, nowMs + 1, 0, 1), Buffer.of(0x91, 9));
      tx.set(key(subspace.queue, 'history', id, nowMs + 2, 0, 1), Buffer.of(0x93, 1, 0xa1, 0x61, 0x91, 99));
    });
    expect(await read()).toHaveLength(1);
  });
});

describe('forgetting', () => {
  it('clears what ended before, in batches, each of which asserts; not what is queued or was written since', async () => {
    const newId = (atMs: number) => createQueueIds({ ...systemClock, nowMs: () => atMs }, systemRandom)();
    const old = Array.from({ length: 400 }, (_, i) => newId(nowMs - 10 * dayMs + i));
    for (let at = 0; at < old.length; at += 100) {
      await kv.transact(async (tx) => {
        for (const one of old.slice(at, at + 100)) {
          history.append(tx, one, { atMs: nowMs - 9 * dayMs, nodeId, event: accepted });
          history.append(tx, one, { atMs: nowMs - 8 * dayMs, nodeId, event: { kind: 'done' } });
        }
      });
    }
    // One with more rows than a batch, of which the last is fresh; one that still waits; one that is new.
    const [long, queued, fresh] = [firstIdAt(nowMs - 11 * dayMs), old[5]!, newId(nowMs)];
    for (let i = 0; i < 300; i++) await write([{ atMs: nowMs - 11 * dayMs + i, nodeId, event: attempt() }], long);
    await write([{ atMs: nowMs - dayMs, nodeId, event: { kind: 'done' } }], long);
    await kv.transact(async (tx) => tx.set(messageKey(queued), Buffer.of(0x91, 1)));
    await write([{ atMs: nowMs, nodeId, event: accepted }], fresh);
    let asserted = 0;
    const assert = async () => void asserted++;
    expect(await history.forget(nowMs - 7 * dayMs, assert)).toBe(399);
    expect(asserted).toBeGreaterThan(3);
    expect(await read(old[4]!)).toEqual([]);
    expect(await read(queued)).toHaveLength(2);
    expect(await read(long)).toHaveLength(301);
    expect(await read(fresh)).toHaveLength(1);
    expect(await history.forget(nowMs - 7 * dayMs)).toBe(0);
  });

  it('does not forget what is written between its reads and its commit', async () => {
    const old = firstIdAt(nowMs - 10 * dayMs);
    await write([{ atMs: nowMs - 9 * dayMs, nodeId, event: accepted }], old);
    let runs = 0;
    const crowded: KvStore = {
      ...kv,
      transact: (body, options) =>
        kv.transact(async (tx) => {
          const value = await body(tx);
          if (runs++ === 0) await write([{ atMs: nowMs, nodeId, event: { kind: 'done' } }], old);
          return value;
        }, options),
    };
    expect(await createHistory({ kv: crowded }).forget(nowMs - 7 * dayMs)).toBe(0);
    expect(runs).toBe(2);
    expect(await read(old)).toHaveLength(2);
  });

  it('clears marks of expansions whose message is gone', async () => {
    const [gone, queued] = [firstIdAt(nowMs - 9 * dayMs), firstIdAt(nowMs - 8 * dayMs)];
    await kv.transact(async (tx) => {
      for (const one of [gone, queued, id]) setExpansionMark(tx, one, 'all@example.test', { last: 'm@x.test', members: 1000 });
      tx.set(messageKey(queued), Buffer.of(0x91, 1));
    });
    await history.forget(nowMs - 7 * dayMs);
    const marks = () =>
      kv.read((reads) => Promise.all([gone, queued, id].map((one) => readExpansionMark(reads, one, 'all@example.test'))));
    const mark = { last: 'm@x.test', members: 1000 };
    expect(await marks()).toEqual([undefined, mark, mark]);
    await kv.transact(async (tx) => clearExpansionMark(tx, queued, 'all@example.test'));
    expect((await marks())[1]).toBeUndefined();
  });

  it('stops when the lease is lost', async () => {
    await write([{ atMs: nowMs - 9 * dayMs, nodeId, event: accepted }], firstIdAt(nowMs - 9 * dayMs));
    const lost = async () => Promise.reject(new Error('lease lost'));
    await expect(history.forget(nowMs, lost)).rejects.toThrow('lease lost');
    expect(await rows()).toHaveLength(1);
  });
});
