/** Asks the expressions of stages, and the rooms behind checks: a check that can't be made is logged, counted, and left out. */
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import type { ExpressionHost, ExpressionType, ExpressionValues, StageExpression } from '../../expressions/contract.js';
import type { Facts } from './facts.js';
import type { MaybePromise } from './maybe.js';
import { stageTrouble } from './metrics.js';

/** A check that the store (or whoever is asked) does not answer within this is passed over. */
const maxCheckMs = 3_000;

export interface AskDependencies {
  host?: ExpressionHost;
  clock: Clock;
  logger: Logger;
}

export class Asker {
  readonly #d: AskDependencies;

  constructor(dependencies: AskDependencies) {
    this.#d = dependencies;
  }

  /** The answer, at once where nothing has to be waited for. What an expression throws is the caller's; those of settings have their fallbacks and don't. */
  ask<T extends ExpressionType>(expression: StageExpression<T>, facts: () => Facts): MaybePromise<ExpressionValues[T]> {
    return expression.constant ?? expression.evaluate(facts(), this.#d.host);
  }

  /** A check that must not stop mail when it can't be made: `otherwise` when it fails or takes too long; `late` gets an answer that nobody waits for. */
  async lenient<T, O>(check: string, work: () => Promise<T>, otherwise: O, late?: (value: T) => void): Promise<T | O> {
    const { clock, logger } = this.#d;
    let isOver = false;
    const over = new AbortController();
    const timeUp = clock.sleep(maxCheckMs, over.signal).then(
      () => {
        isOver = true;
        stageTrouble.inc({ check });
        logger.warn({ check, waitedMs: maxCheckMs }, 'a check of incoming mail took too long and was left out');
        return otherwise;
      },
      () => otherwise,
    );
    const answer = work().then(
      (value) => {
        if (isOver) late?.(value);
        return value;
      },
      (error: unknown) => {
        if (!isOver) {
          stageTrouble.inc({ check });
          logger.warn({ check, err: error }, 'a check of incoming mail could not be made and was left out');
        }
        return otherwise;
      },
    );
    try {
      return await Promise.race([answer, timeUp]);
    } finally {
      over.abort();
    }
  }
}
