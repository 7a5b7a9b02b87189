/** Works on all cores: child processes that take one order after the other, and are replaced after a while, because what died in a run is never taken down. */
import { type ChildProcess, fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { HuntReport } from '../../cluster/testing/false-verdicts.js';
import type { Mistake } from './broken.js';
import type { RunResult } from './run.js';

/** What a child is asked for: a run, or some hours of a hunt for false verdicts. */
export type Order = { kind: 'run'; seed: number; mistake?: Mistake } | { kind: 'hunt'; seed: number; hours: number };
export type Answer = { run: RunResult } | { hunt: HuntReport };

export interface WorkOptions {
  /** Taken as processes become free. */
  orders: Iterable<Order>;
  /** Default: as many as there are cores. */
  processes?: number;
  /** Called as answers come, in any order. Answers whether to go on. */
  onAnswer(answer: Answer): boolean;
}

const ordersPerChild = 120;
/** A run takes a second or so; one that takes this long hangs, also on a busy machine. */
const maxOrderMs = 300_000;

/** Resolves when all orders are done, or when `onAnswer` has had enough. Throws when a child breaks off or hangs. */
export async function work({ orders, processes = availableParallelism(), onAnswer }: WorkOptions): Promise<void> {
  const source = orders[Symbol.iterator]();
  let isOver = false;
  const take = (): Order | undefined => {
    const next = isOver ? undefined : source.next();
    return next?.done ? undefined : next?.value;
  };
  const employ = async () => {
    let child: Child | undefined;
    try {
      for (let order = take(); order; order = take()) {
        if (child && child.orders >= ordersPerChild) {
          child.end();
          child = undefined;
        }
        child ??= new Child();
        const answer = await child.do(order);
        if (!isOver && !onAnswer(answer)) isOver = true;
      }
    } catch (error) {
      isOver = true;
      throw error;
    } finally {
      child?.end();
    }
  };
  await Promise.all(Array.from({ length: processes }, employ));
}

class Child {
  orders = 0;
  readonly #process: ChildProcess;

  constructor() {
    const file = fileURLToPath(new URL('./worker-process.js', import.meta.url));
    // Short-lived garbage is what a simulator makes most of.
    const execArgv = [...process.execArgv, '--max-semi-space-size=32'];
    this.#process = fork(file, [], { execArgv, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  }

  do(order: Order): Promise<Answer> {
    this.orders++;
    return new Promise((resolve, reject) => {
      const done = (settle: () => void) => {
        clearTimeout(timer);
        this.#process.off('message', answered).off('exit', exited);
        settle();
      };
      const answered = (answer: unknown) => done(() => resolve(answer as Answer));
      const exited = (code: number | null) => done(() => reject(new Error(`seed ${order.seed}: the process ended with ${code}`)));
      const timer = setTimeout(() => {
        this.#process.kill('SIGKILL');
        done(() => reject(new Error(`seed ${order.seed} hangs`)));
      }, maxOrderMs);
      this.#process.once('message', answered).once('exit', exited);
      this.#process.send(order);
    });
  }

  end(): void {
    if (this.#process.connected) this.#process.disconnect();
  }
}
