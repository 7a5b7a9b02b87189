import { describe, expect, it } from 'vitest';
import { VirtualTime } from '../testing/virtual-time.js';
import { needlessLink } from './duplicates.js';
import { frameKind, messageFrame, pingFrame } from './frames.js';
import type { Connection, Stream } from './libp2p-types.js';
import { Link, type LinkEvents } from './link.js';
import { Peer } from './peers.js';

const gossip = '/gossip';
const events: LinkEvents = {
  onReady: () => undefined,
  onMessage: () => undefined,
  onPublished: () => undefined,
  onRoundTrip: () => undefined,
  onNonsense: () => undefined,
  onBroken: () => undefined,
};

const time = new VirtualTime();
const clock = time.clock();
const nowMs = () => clock.monotonicMs();

/** A link over a connection that takes everything, and what makes frames come on it. */
async function link({ streams = [] as string[] } = {}) {
  const sent: Buffer[] = [];
  const send = (frame: Buffer) => sent.push(frame) > 0;
  const stream = Object.assign(new EventTarget(), { status: 'open', writeBufferLength: 0, send });
  const connection = {
    status: 'open',
    remotePeer: 'peer-b',
    streams: streams.map((protocol) => ({ protocol })),
    newStream: async () => stream,
  };
  const made = new Link(connection as unknown as Connection, { direct: '/direct', published: '/published' }, clock, events);
  await made.open();
  const inbound = new EventTarget();
  made.accept(inbound as unknown as Stream);
  const comes = (frame: Buffer) =>
    inbound.dispatchEvent(Object.assign(new Event('message'), { data: { subarray: () => frame } }));
  return {
    made,
    sent,
    comes,
    ping: () => comes(pingFrame(frameKind.ping, 1)),
    message: () => comes(messageFrame(Buffer.from('x'))),
  };
}

async function pair(streams: string[] = []) {
  const [used, other] = [await link({ streams: [gossip] }), await link({ streams })];
  const peer = new Peer('peer-b', nowMs());
  for (const { made } of [used, other]) peer.links.add(made);
  peer.current = used.made;
  const needless = (own = 'peer-a') => needlessLink(peer, own, gossip, nowMs());
  return { used, other, peer, needless };
}

describe('of two connections with one peer', () => {
  it('the one that has carried nothing is closed, by one side alone, once the other is proven', async () => {
    const { used, other, needless } = await pair();
    used.message();
    expect(needless()).toBeUndefined();
    await time.advance(10_001);
    // Nothing has come for a while: it may be the one that is dead.
    expect(needless()).toBeUndefined();
    used.ping();
    expect(needless()).toBe(other.made);
    expect(needless('peer-c')).toBeUndefined();
    other.made.closedBy = 'duplicate';
    expect(needless()).toBeUndefined();
  });

  it('both stay when the peer speaks on the second one, or the streams of gossipsub lie there', async () => {
    const spoken = await pair();
    const streaming = await pair([gossip]);
    await time.advance(10_001);
    for (const { used } of [spoken, streaming]) used.ping();
    spoken.other.message();
    expect(spoken.needless()).toBeUndefined();
    expect(streaming.needless()).toBeUndefined();
    await time.advance(10_001);
    spoken.other.ping();
    spoken.used.ping();
    expect(spoken.needless()).toBe(spoken.other.made);
  });

  it('an older one that is slow to answer is given up only when a newer one can carry messages', async () => {
    const { used, other, peer } = await pair();
    other.made.probe(nowMs());
    await time.advance(2_000);
    expect(other.made.deadCause(nowMs(), false)).toBeUndefined();
    expect(other.made.deadCause(nowMs(), peer.isReplaced(other.made))).toBe('superseded');
    expect(peer.isReplaced(used.made)).toBe(true);
  });
});

describe('pings', () => {
  it('are rare where something comes all the time, and come soon when nothing does', async () => {
    const { made, sent, message, comes } = await link();
    /** The pings of so long a time; each is answered. */
    const pingsIn = async (ms: number, isSpeaking: boolean): Promise<number> => {
      let count = 0;
      for (let atMs = 0; atMs < ms; atMs += 250) {
        if (isSpeaking) message();
        made.pingIfDue(nowMs());
        for (const frame of sent.splice(0)) {
          count++;
          comes(pingFrame(frameKind.pong, frame.readUInt32BE(5)));
        }
        await time.advance(250);
      }
      return count;
    };
    expect(await pingsIn(60_000, true)).toBe(4);
    expect(await pingsIn(3_000, false)).toBe(1);
    expect(await pingsIn(57_000, false)).toBe(19);
    // Without an answer: one, and no more.
    await time.advance(3_000);
    made.pingIfDue(nowMs());
    await time.advance(3_750);
    made.pingIfDue(nowMs());
    expect(sent).toHaveLength(1);
    expect(made.deadCause(nowMs(), false)).toBe('silence');
  });
});

describe('pings', () => {
  it('that come before the stream to the peer is open are answered once it is', async () => {
    const sent: Buffer[] = [];
    let opens: () => void = () => undefined;
    const opening = new Promise<void>((resolve) => {
      opens = resolve;
    });
    const stream = Object.assign(new EventTarget(), {
      status: 'open',
      writeBufferLength: 0,
      send: (frame: Buffer) => sent.push(frame) > 0,
    });
    const connection = {
      status: 'open',
      remotePeer: 'peer-b',
      streams: [],
      newStream: async () => {
        await opening;
        return stream;
      },
    };
    const made = new Link(connection as unknown as Connection, { direct: '/direct', published: '/published' }, clock, events);
    const opened = made.open();
    const inbound = new EventTarget();
    made.accept(inbound as unknown as Stream);
    inbound.dispatchEvent(Object.assign(new Event('message'), { data: { subarray: () => pingFrame(frameKind.ping, 77) } }));
    expect(sent).toEqual([]);
    opens();
    await opened;
    expect(sent).toEqual([pingFrame(frameKind.pong, 77)]);
  });

  it('that stay unanswered though the peer speaks are sent anew, and those of a silent peer are not', async () => {
    const { made, sent, message } = await link();
    made.pingIfDue(nowMs());
    expect(sent).toHaveLength(1);
    await time.advance(4_000);
    made.pingIfDue(nowMs());
    expect(sent).toHaveLength(1);
    message();
    made.pingIfDue(nowMs());
    expect(sent).toHaveLength(2);
    expect(sent[1]).not.toEqual(sent[0]);
  });
});
