/** One of the processes that `workers.ts` starts: takes orders over its channel and answers what came of them. */
import { huntFalseVerdicts } from '../../cluster/testing/false-verdicts.js';
import { runSeed } from './run.js';
import type { Answer, Order } from './workers.js';

async function done(order: Order): Promise<Answer> {
  if (order.kind === 'hunt') return { hunt: huntFalseVerdicts(order) };
  return { run: await runSeed(order) };
}

process.on('message', (order: Order) => {
  void done(order).then((answer) => process.send!(answer));
});
