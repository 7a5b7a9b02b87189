/**
 * The stream on one connection that takes what this node publishes straight to the peer, apart from direct messages, so that a flood of the one doesn't hold up
 * the other. Peers of releases that don't know it refuse it; to them gossipsub carries everything.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { gossipLimits } from './contract.js';
import type { Connection, Stream } from './libp2p-types.js';
import { gossipTimes } from './options.js';

/** Inbound streams for published messages on one connection; one is in use, another may be on its way to replace it. */
export const maxLaneStreams = 2;

export class Lane {
  #stream: Stream | undefined;
  #isOpening = false;
  #nextMs = Number.NEGATIVE_INFINITY;
  /** Frames of this turn of the event loop, which go out together. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;

  /** `onNonsense`: the peer has answered where nobody answers. */
  constructor(
    private readonly connection: Connection,
    private readonly protocol: string,
    private readonly clock: Clock,
    private readonly onNonsense: () => void,
  ) {}

  get isOpen(): boolean {
    return this.#stream?.status === 'open' && this.connection.status === 'open';
  }

  /** Opens the stream, unless that was tried a while ago. Never throws. */
  openIfDue(nowMs: number): void {
    if (this.#isOpening || nowMs < this.#nextMs || this.isOpen || this.connection.status !== 'open') return;
    this.#isOpening = true;
    this.#nextMs = nowMs + gossipTimes.laneRetryMs;
    void this.#open().finally(() => {
      this.#isOpening = false;
    });
  }

  /** Never rejects. */
  async #open(): Promise<void> {
    try {
      const stream = await this.connection.newStream([this.protocol], {
        signal: AbortSignal.timeout(gossipTimes.handshakeTimeoutMs),
        maxOutboundStreams: maxLaneStreams,
      });
      stream.addEventListener('message', this.onNonsense);
      stream.addEventListener('close', () => this.#lost(stream), { once: true });
      if (stream.status === 'open') this.#stream = stream;
    } catch {
      // A peer that doesn't know it, or a connection that has just ended.
    }
  }

  #lost(stream: Stream): void {
    if (this.#stream !== stream) return;
    this.#stream = undefined;
    this.#waiting = [];
    this.#waitingBytes = 0;
    // It had worked: it is missed sooner than one that was refused.
    this.#nextMs = this.clock.monotonicMs() + gossipTimes.streamRepairMs;
  }

  /** Takes a frame, which isn't changed any more. False when there is no stream or too much waits in it. */
  send(frame: Buffer): boolean {
    const stream = this.#stream;
    if (!stream || !this.isOpen) return false;
    if (stream.writeBufferLength + this.#waitingBytes + frame.length > gossipLimits.maxOutboundBytes) return false;
    if (this.#waiting.push(frame) === 1) queueMicrotask(() => this.#flush());
    this.#waitingBytes += frame.length;
    return true;
  }

  #flush(): void {
    const frames = this.#waiting;
    if (frames.length === 0) return;
    this.#waiting = [];
    this.#waitingBytes = 0;
    try {
      this.#stream?.send(frames.length === 1 ? frames[0]! : Buffer.concat(frames));
    } catch {
      // It has just been closed; whoever published is told of the loss of the stream.
    }
  }
}
