import { pack, unpack } from 'msgpackr';
import { beforeEach, describe, expect, it } from 'vitest';
import { nodeKeys } from '../../store/keyspace.js';
import { type KvReads, MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import { NodeFenced, type NodeRow } from './contract.js';
import { beat, breakFence, enter, forget, readNodes, retire } from './records.js';
import { decodeRow, encodeRow } from './rows.js';

const row = (nodeId: string, heartbeat = 0): NodeRow => ({
  nodeId,
  incarnation: 1,
  startToken: `token of ${nodeId}`,
  state: 'ready',
  startedAtMs: 1,
  heartbeat,
  sentAtMs: 2,
  hostname: 'mx.example.test',
  addresses: [{ name: 'smtp', protocol: 'smtp', host: '127.0.0.1', port: 25 }],
  roles: ['smtp', 'queue'],
  version: '1.2.3',
  formats: { mail: 1 },
});

let here: MemoryStore;
let there: MemoryStore;

beforeEach(async () => {
  const database = new MemoryDatabase();
  [here, there] = [openMemoryStore({ database }), openMemoryStore({ database })];
  await enter(here, row('a'));
  await enter(there, row('b'));
});

async function evidenceOf(nodeId: string) {
  return { nodeId, ...(await readNodes(here)).get(nodeId)! };
}

describe('a heartbeat', () => {
  it('that was given up and comes after a later one writes nothing', async () => {
    await beat(here, { ...row('a', 5), state: 'draining' });
    await beat(here, row('a', 4));
    expect(decodeRow('a', (await evidenceOf('a')).bytes!)).toMatchObject({ heartbeat: 5, state: 'draining' });
    await beat(here, row('a', 6));
    expect(decodeRow('a', (await evidenceOf('a')).bytes!)).toMatchObject({ heartbeat: 6, state: 'ready' });
  });
});

describe('node rows', () => {
  it('come back as they were written; others are left unread', () => {
    expect(decodeRow('a', encodeRow(row('a', 7)))).toEqual(row('a', 7));
    for (const bytes of [Buffer.alloc(0), Buffer.of(0xc1), Buffer.of(0x91, 3), Buffer.of(0x92, 1, 0x80), Buffer.from('text')]) {
      expect(decodeRow('a', bytes)).toBeUndefined();
    }
  });

  it('tell how to reach a node by gossip, in a place where software of the release before does not look', () => {
    const gossip = { peerId: '12D3KooW', addresses: [{ host: 'mx.example.test', port: 2946 }] };
    const bytes = encodeRow({ ...row('a'), gossip });
    expect(decodeRow('a', bytes)).toEqual({ ...row('a'), gossip });
    const elements = unpack(bytes) as unknown[];
    // Format 2 has been twelve elements; what follows is not looked at.
    expect(elements.slice(0, 12)).toEqual(unpack(encodeRow(row('a'))));
    expect(elements).toHaveLength(13);
  });

  it('are good without an identity where it is garbage', () => {
    const elements = unpack(encodeRow(row('a'))) as unknown[];
    const garbage = [
      0,
      '',
      null,
      {},
      [],
      ['p'],
      ['', []],
      ['p', 7],
      ['p', [['h']]],
      ['p', [['h', 0]]],
      ['p', [['h', 1.5]]],
      ['p', [7]],
      [['p'], []],
    ];
    for (const value of garbage) expect(decodeRow('a', pack([...elements, value]))).toEqual(row('a'));
    // Nor does the rest throw.
    for (let at = 1; at < elements.length; at++) {
      for (const value of [null, 7, 'x', [], [null], {}]) {
        const broken = [...elements];
        broken[at] = value;
        expect(() => decodeRow('a', pack(broken))).not.toThrow();
      }
    }
  });

  it('are read with their fences, page by page', async () => {
    await here.transact(async (tx) => {
      for (let i = 0; i < 1_200; i++) tx.set(nodeKeys.row(`n${i}`), Buffer.of(i & 0xff));
      tx.set(nodeKeys.fence('n7'), Buffer.alloc(0));
      tx.set(nodeKeys.fence('alone'), Buffer.alloc(0));
    });
    const found = await readNodes(here);
    expect(found.size).toBe(1_203);
    expect(found.get('n7')).toEqual({ bytes: Buffer.of(7), hasFence: true });
    expect(found.get('n8')).toEqual({ bytes: Buffer.of(8), hasFence: false });
    expect(found.get('alone')).toEqual({ hasFence: true });
  });
});

describe('becoming a member', () => {
  const reason = new Error('half of a copy');
  const refuse = async (reads: KvReads) => {
    if (await reads.get(Buffer.from('mark'))) throw reason;
  };

  it('is refused where no node may run, and leaves nothing behind', async () => {
    await here.transact(async (tx) => tx.set(Buffer.from('mark'), Buffer.alloc(0)));
    await expect(enter(there, row('c'), refuse)).rejects.toBe(reason);
    expect([...(await readNodes(here)).keys()]).toEqual(['a', 'b']);
  });

  it('is refused when the mark is made in the same moment', async () => {
    let isFirst = true;
    const racing = async (reads: KvReads) => {
      await refuse(reads);
      if (isFirst) await here.transact(async (tx) => tx.set(Buffer.from('mark'), Buffer.alloc(0)));
      isFirst = false;
    };
    await expect(enter(there, row('c'), racing)).rejects.toBe(reason);
  });
});

describe('breaking a fence', () => {
  it('stops the node, and is harmless when several do it', async () => {
    const evidence = await evidenceOf('b');
    expect(await breakFence(here, 'a', evidence)).toBe('broken');
    expect(await breakFence(here, 'a', evidence)).toBe('was-broken');
    await expect(beat(there, row('b', 1))).rejects.toBeInstanceOf(NodeFenced);
    await expect(enter(there, row('b'))).rejects.toThrow('already');
    await forget(here, 'b');
    expect([...(await readNodes(here)).keys()]).toEqual(['a']);
  });

  it('does nothing to a node that has raised its counter since it was looked at', async () => {
    const evidence = await evidenceOf('b');
    await beat(there, row('b', 1));
    expect(await breakFence(here, 'a', evidence)).toBeUndefined();
    await beat(there, row('b', 2));
    await forget(here, 'b');
    expect((await evidenceOf('b')).hasFence).toBe(true);
  });

  it('conflicts with a heartbeat that comes between its look and its commit', async () => {
    const evidence = await evidenceOf('b');
    const transact = here.transact.bind(here);
    let runs = 0;
    here.transact = ((body, options) =>
      transact(async (tx) => {
        const value = await body(tx);
        if (runs++ === 0) await beat(there, row('b', 1));
        return value;
      }, options)) as typeof here.transact;
    expect(await breakFence(here, 'a', evidence)).toBeUndefined();
    expect(runs).toBe(2);
    await beat(there, row('b', 2));
  });

  it('is not for a node that has been fenced itself', async () => {
    const evidence = await evidenceOf('b');
    await breakFence(there, 'b', await evidenceOf('a'));
    await expect(breakFence(here, 'a', evidence)).rejects.toBeInstanceOf(NodeFenced);
    expect((await evidenceOf('b')).hasFence).toBe(true);
  });

  it('does nothing when somebody has joined under an id that had claims only', async () => {
    expect(await breakFence(here, 'a', { nodeId: 'b', hasFence: false })).toBeUndefined();
    expect(await breakFence(here, 'a', { nodeId: 'nobody', hasFence: false })).toBe('was-broken');
  });

  it('of its own is for the process whose row it is', async () => {
    expect(await retire(here, { ...row('b'), startToken: 'another' })).toBe(false);
    expect((await evidenceOf('b')).hasFence).toBe(true);
    expect(await retire(there, row('b'))).toBe(true);
    expect((await evidenceOf('b')).hasFence).toBe(false);
  });
});
