/** Lines between nodes are cut while all of them reach the store: isolated nodes keep their work, and nobody may be declared dead. */
import type { Scenario } from '../../chaos/stage.js';

export const partitionPeers: Scenario = {
  name: 'partition-peers',
  summary: 'cut one node off from all its peers; it still reaches the store',
  needs: ['cut-peers'],
  async run(stage) {
    const { victim } = stage;
    const others = stage.indexes.filter((index) => index !== victim);
    const heal = await stage.cut('peers-cut', [{ node: victim, from: { nodes: others } }], `node ${victim} from its peers`);
    await stage.pause(stage.strikeMs * 0.8);
    await heal();
  },
};

export const partitionHalves: Scenario = {
  name: 'partition-halves',
  summary: 'cut one half of the nodes off from the other; both reach the store',
  needs: ['cut-peers'],
  async run(stage) {
    const middle = Math.floor(stage.nodes.length / 2);
    const [one, other] = [stage.indexes.slice(0, middle), stage.indexes.slice(middle)];
    const cuts = one.map((node) => ({ node, from: { nodes: other } }));
    const heal = await stage.cut('peers-cut', cuts, `nodes ${one.join(', ')} from nodes ${other.join(', ')}`);
    await stage.pause(stage.strikeMs * 0.8);
    await heal();
  },
};

export const partitionOneWay: Scenario = {
  name: 'partition-one-way',
  summary: 'one node is heard by its peers and hears nothing of them',
  needs: ['cut-peers'],
  async run(stage) {
    const { victim } = stage;
    const others = stage.indexes.filter((index) => index !== victim);
    const cut = { node: victim, from: { nodes: others }, direction: 'in' as const };
    const heal = await stage.cut('peers-cut', [cut], `what node ${victim} hears of its peers`);
    await stage.pause(stage.strikeMs * 0.8);
    await heal();
  },
};

const gossipCutMs = 5_000;

export const gossipCut: Scenario = {
  name: 'gossip-cut',
  summary: 'cut the gossip of each node for 5 s in turn: nobody may be declared dead',
  needs: ['cut-peers'],
  async run(stage) {
    for (const index of stage.indexes) {
      const others = stage.indexes.filter((other) => other !== index);
      const heal = await stage.cut('gossip-cut', [{ node: index, from: { gossip: others } }], `the gossip of node ${index}`);
      await stage.pause(gossipCutMs);
      await heal();
      await stage.pause(1_000);
    }
  },
};
