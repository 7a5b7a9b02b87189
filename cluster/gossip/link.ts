/**
 * One connection with one peer, and the direct protocol on it: a stream each way that lives as long as the connection, messages and pings; beside it the lane
 * for published messages. Knows whether the other side is still there.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { gossipLimits } from './contract.js';
import { FrameReader, frameKind, pingFrame } from './frames.js';
import { Lane } from './lane.js';
import type { Connection, Stream } from './libp2p-types.js';
import { gossipTimes } from './options.js';
import { listenShort } from './shortcut.js';

/** What a link tells. */
export interface LinkEvents {
  /** It can carry messages. */
  onReady(link: Link): void;
  onMessage(link: Link, envelope: Buffer): void;
  /** Published by the peer itself. `kind`: of the frame, which stands for the topic. */
  onPublished(link: Link, kind: number, envelope: Buffer): void;
  onRoundTrip(link: Link, roundTripMs: number): void;
  /** What came is not of the protocol. */
  onNonsense(link: Link, reason: 'garbage' | 'oversized'): void;
  /** The peer does not take up the protocol, or has ended it. */
  onBroken(link: Link): void;
}

/** Inbound streams of the direct protocol on one connection; one is in use, another may be on its way to replace it. */
export const maxDirectStreams = 2;

export class Link {
  readonly peerId: string;
  readonly lane: Lane;
  readonly #openedMs: number;
  #readyMs: number | undefined;
  /** When the last message came on it (monotonic); pings don't count. */
  #messageMs = Number.NEGATIVE_INFINITY;
  /** Why this node has closed it. */
  closedBy: string | undefined;
  #out: Stream | undefined;
  #heardMs: number;
  #hasHeard = false;
  #pingedMs: number | undefined;
  #isPingOpen = false;
  #pingToken = 0;
  #owedPong: number | undefined;
  /** A newer connection exists: this one has to show that it lives. */
  #isProbed = false;

  constructor(
    readonly connection: Connection,
    private readonly protocols: { direct: string; published: string },
    private readonly clock: Clock,
    private readonly events: LinkEvents,
  ) {
    this.peerId = connection.remotePeer.toString();
    this.lane = new Lane(connection, protocols.published, clock, () => events.onNonsense(this, 'garbage'));
    this.#openedMs = this.#heardMs = clock.monotonicMs();
  }

  get isReady(): boolean {
    return this.#out !== undefined && this.connection.status === 'open';
  }

  /** When anything came on it last (monotonic). */
  get heardMs(): number {
    return this.#heardMs;
  }

  /** It could carry messages at some time. */
  get wasReady(): boolean {
    return this.#readyMs !== undefined;
  }

  /** It has been ready for so long, and the peer speaks on it. */
  isProven(forMs: number, nowMs: number): boolean {
    return this.isReady && nowMs - this.#readyMs! >= forMs && nowMs - this.#heardMs < gossipTimes.silenceMs && this.#hasHeard;
  }

  /** It is no new one, and no message has come on it for so long. */
  isUnused(forMs: number, nowMs: number): boolean {
    return nowMs - this.#openedMs >= forMs && nowMs - this.#messageMs >= forMs;
  }

  /** Opens the stream from here to there. Never rejects. */
  async open(): Promise<void> {
    try {
      const stream = await this.connection.newStream([this.protocols.direct], {
        signal: AbortSignal.timeout(gossipTimes.handshakeTimeoutMs),
        maxOutboundStreams: maxDirectStreams,
      });
      if (this.connection.status !== 'open') return;
      // Nothing comes on this stream: the peer speaks on its own one.
      stream.addEventListener('message', () => this.events.onNonsense(this, 'garbage'));
      stream.addEventListener('close', () => this.#lost(stream), { once: true });
      stream.addEventListener('remoteCloseWrite', () => undefined);
      this.#out = stream;
      this.#readyMs = this.clock.monotonicMs();
      if (this.#owedPong !== undefined) this.send(pingFrame(frameKind.pong, this.#owedPong));
      this.events.onReady(this);
      this.lane.openIfDue(this.#readyMs);
    } catch {
      if (this.connection.status === 'open') this.events.onBroken(this);
    }
  }

  #lost(stream: Stream): void {
    if (this.#out !== stream) return;
    this.#out = undefined;
    if (this.connection.status === 'open') this.events.onBroken(this);
  }

  /** The peer's stream to here. */
  accept(stream: Stream): void {
    this.#read(stream, (kind, content) => this.#frame(kind, content));
  }

  /** The peer's lane to here. */
  acceptLane(stream: Stream): void {
    this.#read(stream, (kind, content) => {
      this.#messageMs = this.#heardMs;
      this.events.onPublished(this, kind, content);
    });
  }

  #read(stream: Stream, onFrame: (kind: number, content: Buffer) => void): void {
    let isSane = true;
    const reader = new FrameReader((kind, content) => {
      if (isSane) onFrame(kind, content);
    });
    listenShort(stream, (bytes) => {
      if (!isSane) return;
      this.#heardMs = this.clock.monotonicMs();
      this.#hasHeard = true;
      this.#isProbed = false;
      isSane = reader.push(bytes);
      if (!isSane) this.events.onNonsense(this, 'oversized');
    });
  }

  #frame(kind: number, content: Buffer): void {
    if (kind === frameKind.message) {
      this.#messageMs = this.#heardMs;
      this.events.onMessage(this, content);
      // Other kinds are of a later version.
    } else if (kind === frameKind.ping || kind === frameKind.pong) {
      if (content.length === 4) this.#pingOrPong(kind, content.readUInt32BE(0));
      else this.events.onNonsense(this, 'garbage');
    }
  }

  #pingOrPong(kind: typeof frameKind.ping | typeof frameKind.pong, token: number): void {
    if (kind === frameKind.ping) {
      // One that comes before the stream from here to there is open is answered when it is.
      if (this.#out) this.send(pingFrame(frameKind.pong, token));
      else this.#owedPong = token;
    } else if (this.#isPingOpen && token === this.#pingToken) {
      this.#isPingOpen = false;
      this.events.onRoundTrip(this, this.clock.monotonicMs() - this.#pingedMs!);
    }
  }

  /** False when there is no stream or too much waits in it. Pings go out all the same: a peer that takes nothing must be noticed. */
  send(frame: Buffer, isPing = false): boolean {
    const stream = this.#out;
    if (!stream || this.connection.status !== 'open' || stream.status !== 'open') return false;
    if (!isPing && stream.writeBufferLength + frame.length > gossipLimits.maxOutboundBytes) return false;
    try {
      stream.send(frame);
      return true;
    } catch {
      return false; // it has just been closed
    }
  }

  /** Sends a ping when it is time for one. Where the peer is heard all the time anyway, they are there for the round trip alone, and rare. */
  pingIfDue(nowMs: number): void {
    // What has come since tells that the peer lives and has not taken the ping: its own stream was not open yet.
    if (this.#isPingOpen && (this.#heardMs <= this.#pingedMs! || nowMs - this.#pingedMs! < gossipTimes.pingIntervalMs)) return;
    const isQuiet = nowMs - this.#heardMs >= gossipTimes.quietMs;
    const pauseMs = isQuiet ? gossipTimes.pingIntervalMs : gossipTimes.roundTripIntervalMs;
    if (this.#pingedMs === undefined || this.#isPingOpen || nowMs - this.#pingedMs >= pauseMs) this.#ping(nowMs);
  }

  #ping(nowMs: number): void {
    this.#pingToken = (this.#pingToken + 1) >>> 0;
    if (!this.send(pingFrame(frameKind.ping, this.#pingToken), true)) return;
    this.#isPingOpen = true;
    this.#pingedMs = nowMs;
  }

  /** A newer connection with the same peer has come: often because the peer knows this one to be dead. */
  probe(nowMs: number): void {
    if (this.#isProbed) return;
    this.#isProbed = true;
    if (!this.#isPingOpen) this.#ping(nowMs);
  }

  /** It seems to carry nothing any more, though it may be too early to give it up. */
  isDoubtful(nowMs: number): boolean {
    return this.#isPingOpen && nowMs - this.#pingedMs! > gossipTimes.doubtMs && nowMs - this.#heardMs > gossipTimes.doubtMs;
  }

  /** Why the connection must be given up; undefined when it need not. `isReplaced`: another one with the same peer can carry messages. */
  deadCause(nowMs: number, isReplaced: boolean): 'silence' | 'superseded' | undefined {
    const openMs = this.#isPingOpen ? nowMs - this.#pingedMs! : 0;
    if (isReplaced && this.#isProbed && openMs > gossipTimes.supersededSilenceMs) return 'superseded';
    if (openMs > gossipTimes.silenceMs && nowMs - this.#heardMs > gossipTimes.silenceMs) return 'silence';
    return undefined;
  }

  /** This process stood still: what the peer said meanwhile has not been read yet. */
  forgive(standstillMs: number): void {
    this.#heardMs += standstillMs;
    if (this.#pingedMs !== undefined) this.#pingedMs += standstillMs;
  }

  /** Hangs up, and lets what was written go out first. Never rejects. */
  async close(): Promise<void> {
    await this.connection.close().catch(() => undefined);
  }

  /** Hangs up without waiting for anything. */
  abort(reason: string): void {
    this.connection.abort(new Error(reason));
  }
}
