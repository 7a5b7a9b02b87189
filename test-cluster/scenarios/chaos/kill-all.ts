/** kill -9 of all nodes at the same moment: nobody is left who could declare anybody dead; whoever comes back finds the rest. */
import type { Scenario } from '../../chaos/stage.js';

const downMs = 1_000;

export const killAll: Scenario = {
  name: 'kill-all',
  summary: 'kill -9 all nodes at once, start them again',
  async run(stage) {
    const starts = await Promise.all(stage.indexes.map((index) => stage.kill(index)));
    await stage.pause(downMs);
    await Promise.all(starts.map((start) => start()));
  },
};
