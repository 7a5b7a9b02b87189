/** What all traffic has in common: it goes to a home node, to another one while that does not work, and home again, at its pace, until it is told to stop. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChaosNode } from '../harness/chaos-node.js';

const awayMs = 1_500;
const retryMs = 100;

export type Target = Pick<ChaosNode, 'index' | 'host' | 'port'>;

export class Pace {
  #awayUntilMs = 0;
  #detours = 0;

  constructor(
    private readonly home: number,
    private readonly nodes: readonly Target[],
    private readonly intervalMs: number,
    private readonly signal: AbortSignal,
  ) {}

  get isOver(): boolean {
    return this.signal.aborted;
  }

  /** Where to go now. */
  target(): Target {
    const isAway = performance.now() < this.#awayUntilMs;
    return this.nodes[(this.home + (isAway ? this.#detours : 0)) % this.nodes.length]!;
  }

  /** Waits for the next turn, a little irregularly so that workers don't march in step. */
  async turn(random: () => number): Promise<void> {
    await sleep(this.intervalMs * (0.5 + random()), undefined, { signal: this.signal }).catch(() => undefined);
  }

  /** Where it is now does not work: elsewhere for a while. */
  async detour(): Promise<void> {
    this.#detours = (this.#detours % Math.max(1, this.nodes.length - 1)) + 1;
    this.#awayUntilMs = performance.now() + awayMs;
    await sleep(retryMs, undefined, { signal: this.signal }).catch(() => undefined);
  }
}

/** Rejects after `milliseconds`; the promise itself goes on. */
export async function within<T>(milliseconds: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
