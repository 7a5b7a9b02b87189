/** kill -9 of one node under load: the others declare it dead, take over its work, and it comes back as another. */
import type { Scenario } from '../../chaos/stage.js';

export const killOne: Scenario = {
  name: 'kill-one',
  summary: 'kill -9 one node, start it again later',
  async run(stage) {
    const again = await stage.kill(stage.victim);
    await stage.pause(stage.strikeMs * 0.8);
    await again();
  },
};
