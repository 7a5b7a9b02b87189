/** A line that comes and goes, now and then for longer than a heartbeat. */
import type { Scenario } from '../../chaos/stage.js';

const longestMs = 1_500;

export const flapping: Scenario = {
  name: 'flapping',
  summary: 'the line between one node and its peers comes and goes',
  needs: ['cut-peers'],
  async run(stage) {
    const { victim } = stage;
    const others = stage.indexes.filter((index) => index !== victim);
    for (const untilMs = performance.now() + stage.strikeMs * 0.8; performance.now() < untilMs; ) {
      const heal = await stage.cut('peers-cut', [{ node: victim, from: { nodes: others } }], `node ${victim} from its peers`);
      await stage.pause(200 + stage.random() * longestMs);
      await heal();
      await stage.pause(200 + stage.random() * longestMs);
    }
  },
};
