import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../ops/telemetry/index.js';
import { VirtualTime } from '../testing/virtual-time.js';
import { addressText, multiaddrText, Names, parseMultiaddr, reachableAddresses } from './addresses.js';
import { gossipLimits, topics } from './contract.js';
import { packEnvelope, unpackEnvelope } from './envelope.js';
import { FrameReader, frameKind, messageFrame, pingFrame, publishedFrame, topicOfFrame } from './frames.js';
import { deriveNetworkKeys, protocolNames } from './keys.js';
import { RecentIds } from './recent-ids.js';
import { Replays } from './replays.js';
import { TokenBucket } from './token-bucket.js';

const packr = new Packr({ useRecords: false });

describe('envelopes', () => {
  it('bring back what went in', () => {
    const body = {
      account: 'a1',
      modseq: 9_007_199_254_740_991,
      version: 12345678901234567890n,
      list: [1, 'x', null],
      bytes: Buffer.from([1, 2]),
    };
    const message = { from: 'n1', incarnation: 3, sequence: 70_000, body };
    expect(unpackEnvelope(packEnvelope(message))).toEqual(message);
  });

  it('of a later version are told from garbage', () => {
    expect(unpackEnvelope(packr.pack([2, 'whatever', { comes: 'later' }]))).toBe('newer');
    expect(unpackEnvelope(packr.pack([1, 'n1', 1, 1, 'body', 'an addition']))).toMatchObject({ body: 'body' });
  });

  it.each([
    [[0, 'n1', 1, 1, 'x']],
    [[-1, 'n1', 1, 1, 'x']],
    [[1, '', 1, 1, 'x']],
    [[1, 'n'.repeat(65), 1, 1, 'x']],
    [[1, 'n1', -1, 1, 'x']],
    [[1, 'n1', 1, 0, 'x']],
    [[1, 'n1', 1.5, 1, 'x']],
    [[1, 'n1', 1, 1]],
    [[1, 5, 1, 1, 'x']],
    [{ version: 1 }],
    ['text'],
    [null],
  ])('refuse %j', (fields) => {
    expect(unpackEnvelope(packr.pack(fields))).toBe('garbage');
  });

  it('never throw at arbitrary bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const message = unpackEnvelope(bytes);
        if (typeof message !== 'string') expect(message.from.length).toBeGreaterThan(0);
      }),
    );
  });
});

describe('replays', () => {
  it('lets every number through once, in whatever order a mesh brings them', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 4_000 }), { minLength: 1 }), (numbers) => {
        const replays = new Replays();
        for (const number of numbers) expect(replays.see('changes', 'n1', 1, number)).toBe('new');
        for (const number of numbers) expect(replays.see('changes', 'n1', 1, number)).toBe('duplicate');
      }),
    );
  });

  it('takes what is older than the window for a replay, across jumps of any size', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 60 }), (numbers) => {
        const replays = new Replays();
        const before = new Set<number>();
        let highest = 0;
        for (const number of numbers) {
          const expected = number <= highest - 4_096 ? 'stale' : before.has(number) ? 'duplicate' : 'new';
          expect(replays.see('changes', 'n1', 1, number)).toBe(expected);
          before.add(number);
          highest = Math.max(highest, number);
        }
      }),
    );
  });

  it('keeps topics and origins apart, and drops a lower incarnation on all topics', () => {
    const replays = new Replays();
    expect(replays.see('changes', 'n1', 1, 5)).toBe('new');
    expect(replays.see('control', 'n1', 1, 5)).toBe('new');
    expect(replays.see('changes', 'n2', 1, 5)).toBe('new');
    expect(replays.see('control', 'n1', 2, 1)).toBe('new');
    expect(replays.see('changes', 'n1', 1, 6)).toBe('stale');
    expect(replays.seeDirect('n1', 1, 1)).toBe('stale');
    // A new process counts from the beginning.
    expect(replays.see('changes', 'n1', 2, 1)).toBe('new');
  });

  it('takes direct messages only in ascending order', () => {
    const replays = new Replays();
    expect([1, 2, 4, 4, 3, 5].map((number) => replays.seeDirect('n1', 1, number))).toEqual([
      'new',
      'new',
      'new',
      'duplicate',
      'stale',
      'new',
    ]);
  });
});

describe('frames', () => {
  it('come out as they went in, however they are cut', () => {
    const frames = [
      messageFrame(Buffer.alloc(0)),
      messageFrame(Buffer.from('one')),
      pingFrame(frameKind.ping, 0xfffffffe),
      messageFrame(Buffer.alloc(700, 5)),
    ];
    const all = Buffer.concat(frames);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: all.length }), { maxLength: 12 }), (cuts) => {
        const seen: [number, string][] = [];
        const reader = new FrameReader((kind, content) => seen.push([kind, content.toString('hex')]));
        const edges = [0, ...cuts.sort((a, b) => a - b), all.length];
        for (let index = 1; index < edges.length; index++)
          expect(reader.push(all.subarray(edges[index - 1], edges[index]))).toBe(true);
        expect(seen).toEqual([
          [frameKind.message, ''],
          [frameKind.message, Buffer.from('one').toString('hex')],
          [frameKind.ping, 'fffffffe'],
          [frameKind.message, '05'.repeat(700)],
        ]);
      }),
    );
  });

  it('of an impossible length are refused with the fourth byte', () => {
    const reader = new FrameReader(() => expect.unreachable());
    const length = Buffer.alloc(4);
    length.writeUInt32BE(gossipLimits.maxMessageBytes + 2);
    expect(reader.push(length.subarray(0, 3))).toBe(true);
    expect(reader.push(length.subarray(3))).toBe(false);
    expect(new FrameReader(() => undefined).push(Buffer.alloc(4))).toBe(false);
  });
});

describe('frames of published messages', () => {
  it('carry their topic, whose number is the same in every release', () => {
    const seen: [string | undefined, string][] = [];
    const reader = new FrameReader((kind, content) => seen.push([topicOfFrame(kind), content.toString()]));
    for (const topic of topics) reader.push(publishedFrame(topic, Buffer.from(`about ${topic}`)));
    expect(seen).toEqual(topics.map((topic) => [topic, `about ${topic}`]));
    expect(topics.map((topic) => publishedFrame(topic, Buffer.alloc(0))[4])).toEqual([1, 2, 3]);
    expect(topicOfFrame(77)).toBeUndefined();
  });
});

describe('recent ids', () => {
  it('are taken once, kept for ten seconds at least and twenty at most, and bounded in number', () => {
    const recent = new RecentIds();
    recent.add('a', 0);
    expect([recent.take('a'), recent.take('a'), recent.take('b')]).toEqual([true, false, false]);
    recent.add('old', 0);
    recent.add('new', 10_000);
    expect(recent.take('old')).toBe(true);
    recent.add('newer', 20_000);
    expect([recent.take('new'), recent.take('newer')]).toEqual([true, true]);
    recent.add('forgotten', 20_001);
    recent.add('much later', 60_000);
    expect(recent.take('forgotten')).toBe(false);
    for (let index = 0; index < 100_000; index++) recent.add(`flood ${index}`, 60_001);
    expect(recent.take('flood 99999')).toBe(true);
    expect(recent.take('flood 50000')).toBe(false);
  });
});

describe('keys', () => {
  it('differ from cluster to cluster, and are the same on every node of one', () => {
    const one = deriveNetworkKeys(Buffer.alloc(32, 1));
    expect(deriveNetworkKeys(Buffer.alloc(32, 1))).toEqual(one);
    const other = deriveNetworkKeys(Buffer.alloc(32, 2));
    expect(other.tag).not.toBe(one.tag);
    expect(Buffer.from(other.swarmKey)).not.toEqual(Buffer.from(one.swarmKey));
    expect(Buffer.from(one.swarmKey).toString()).toMatch(/^\/key\/swarm\/psk\/1\.0\.0\/\n\/base16\/\n[0-9a-f]{64}$/);
    expect(protocolNames(one.tag).direct).toBe(`/starling/${one.tag}/direct/1`);
  });

  it('need 32 bytes', () => {
    expect(() => deriveNetworkKeys(Buffer.alloc(31))).toThrow("the cluster's secret has 31 bytes, not 32");
  });
});

describe('addresses', () => {
  it.each([
    [{ host: '10.0.0.1', port: 5 }, '/ip4/10.0.0.1/tcp/5', '10.0.0.1:5'],
    [{ host: '::1', port: 5 }, '/ip6/::1/tcp/5', '[::1]:5'],
    [{ host: 'fe80::1%eth0', port: 5 }, '/ip6zone/eth0/ip6/fe80::1/tcp/5', '[fe80::1%eth0]:5'],
  ])('%j', (address, multiaddr, text) => {
    expect(multiaddrText(address)).toBe(multiaddr);
    expect(parseMultiaddr(`${multiaddr}/p2p/12D3Koo`)).toEqual(address);
    expect(addressText(address)).toBe(text);
  });

  it('that others can use come before loopback', () => {
    const loopback = { host: '127.0.0.1', port: 1 };
    const outside = { host: '10.0.0.1', port: 1 };
    expect(reachableAddresses([loopback, { host: 'fe80::1%eth0', port: 1 }, outside])).toEqual([outside]);
    expect(reachableAddresses([loopback])).toEqual([loopback]);
    expect(parseMultiaddr('/dns4/x/tcp/1')).toBeUndefined();
  });

  it('names are resolved as the machine does', async () => {
    const names = new Names(systemClock);
    expect(await names.resolve('::1')).toEqual(['::1']);
    expect((await names.resolve('localhost')).some((host) => host === '127.0.0.1' || host === '::1')).toBe(true);
    expect(await names.resolve('no.such.host.invalid')).toEqual([]);
  });

  it('names keep their last addresses while DNS does not answer', async () => {
    const time = new VirtualTime();
    let answer: string[] | undefined = ['10.0.0.1'];
    const names = new Names(time.clock(), async () => {
      if (!answer) throw new Error('SERVFAIL');
      return answer.map((address) => ({ address }));
    });
    expect(await names.resolve('node1')).toEqual(['10.0.0.1']);
    answer = undefined;
    await time.advance(60_000);
    expect(await names.resolve('node1')).toEqual(['10.0.0.1']);
    expect(await names.resolve('node2')).toEqual([]);
    answer = ['10.0.0.2'];
    await time.advance(6_000);
    expect(await names.resolve('node1')).toEqual(['10.0.0.2']);
  });
});

describe('token buckets', () => {
  it('give bursts and then the rate', () => {
    const bucket = new TokenBucket(10, 50, 0);
    const take = (count: number, nowMs: number) => Array.from({ length: count }, () => bucket.take(nowMs)).filter(Boolean).length;
    expect(take(60, 0)).toBe(50);
    expect(take(60, 1_000)).toBe(10);
    expect(take(60, 100_000)).toBe(50);
  });
});
