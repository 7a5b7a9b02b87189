/**
 * How far the wall clocks of others are from ours, told from the times in their heartbeats. A heartbeat is read up to an interval after it was sent,
 * so the largest of the last few differences, and half an interval, is the nearest to the truth. Reported, never decided by.
 */
import type { Logger } from '../../ops/telemetry/index.js';

const keptSamples = 8;
/** Beyond this somebody should look after the clock: due times and retries are off by as much. */
const worthyOfNoteMs = 10_000;

interface Peer {
  samplesMs: number[];
  isNoted: boolean;
}

export class ClockSkews {
  readonly #peers = new Map<string, Peer>();

  constructor(
    readonly logger: Logger,
    /** Between two heartbeats, and between two looks at them. */
    readonly intervalMs: number,
  ) {}

  /** A heartbeat sent at `sentAtMs` by the other's clock was read at `nowMs` by ours. */
  sample(nodeId: string, sentAtMs: number, nowMs: number): void {
    let peer = this.#peers.get(nodeId);
    if (!peer) this.#peers.set(nodeId, (peer = { samplesMs: [], isNoted: false }));
    peer.samplesMs.push(sentAtMs - nowMs);
    if (peer.samplesMs.length > keptSamples) peer.samplesMs.shift();
    const skewMs = this.#estimateMs(peer);
    const isFar = Math.abs(skewMs) > worthyOfNoteMs;
    if (isFar === peer.isNoted) return;
    peer.isNoted = isFar;
    const facts = { peerNodeId: nodeId, skewSeconds: Math.round(skewMs / 1000) };
    if (isFar) this.logger.warn(facts, 'the wall clocks of this node and another are far apart');
    else this.logger.info(facts, 'the wall clocks of this node and another agree again');
  }

  of(nodeId: string): number | undefined {
    const peer = this.#peers.get(nodeId);
    return peer && this.#estimateMs(peer);
  }

  #estimateMs({ samplesMs }: Peer): number {
    return Math.max(...samplesMs) + this.intervalMs / 2;
  }

  /** Forgets all but these. */
  keep(nodeIds: { has(nodeId: string): boolean }): void {
    for (const nodeId of this.#peers.keys()) if (!nodeIds.has(nodeId)) this.#peers.delete(nodeId);
  }
}
