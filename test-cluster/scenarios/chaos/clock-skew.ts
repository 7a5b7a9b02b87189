/** The wall clock of one node is an hour ahead, that of another an hour behind, from the start: they work like all others, also when one of them is killed. */
import type { Scenario } from '../../chaos/stage.js';

const skewSeconds = 3_600;

export const clockSkew: Scenario = {
  name: 'clock-skew',
  summary: 'one node an hour ahead, another an hour behind; then kill -9 the one ahead',
  needs: ['wrong-clock'],
  cluster: ({ clockEnv }) => ({
    envOf: (index) => (index === 1 ? clockEnv('+1h') : index === 2 ? clockEnv('-1h') : undefined),
  }),
  async run(stage) {
    for (const index of stage.indexes.slice(1, 3)) stage.mark('clock', index);
    await stage.pause(stage.strikeMs * 0.3);
    const listed = (await stage.cluster.node(0).ask('node list')) as { id: string; clockSkewSeconds: number | null }[];
    for (const { index, nodeId } of stage.nodes.slice(1, 3)) {
      const skew = listed.find(({ id }) => id === nodeId)?.clockSkewSeconds ?? 0;
      stage.note(`node 0 finds the clock of node ${index} ${skew} s off`);
      if (Math.abs(skew) < skewSeconds / 2) stage.recorder.violate('clock', `node 0 does not notice the clock of node ${index}`);
    }
    const again = await stage.kill(stage.victim);
    await stage.pause(stage.strikeMs * 0.5);
    await again();
  },
};
