/** A node is added under load: it finds the others by itself, is found by them, and gets its share. */
import type { Scenario } from '../../chaos/stage.js';

export const join: Scenario = {
  name: 'join',
  summary: 'add a node under load',
  async run(stage) {
    const node = await stage.join();
    await stage.pause(stage.strikeMs * 0.3);
    for (const other of stage.nodes) {
      const listed = (await other.ask('node list')) as { id: string }[];
      const missing = stage.nodes.filter(({ nodeId }) => !listed.some(({ id }) => id === nodeId));
      if (missing.length > 0)
        stage.recorder.violate(
          'unknown-node',
          `node ${other.index} does not know ${missing.map(({ index }) => index).join(', ')}`,
        );
    }
    stage.note(`every node knows node ${node.index}`);
  },
};
