/** One node can't reach the store any more, in silence: it steps down by itself, loses its claims, and comes back by itself. */
import type { Scenario } from '../../chaos/stage.js';

/** A term of 10 s and what it takes to notice. */
const cutMs = 13_000;

export const partitionStore: Scenario = {
  name: 'partition-store',
  summary: 'cut one node off from the store for longer than a term; its peers hear it',
  async run(stage) {
    const { victim } = stage;
    const heal = await stage.cut('store-cut', [{ node: victim, from: 'store' }], `node ${victim} from the store`);
    await stage.pause(Math.max(cutMs, stage.strikeMs * 0.7));
    await heal();
  },
};
