/** Three faults at the same time, drawn from the run's seed. */
import type { Scenario, Stage } from '../../chaos/stage.js';

type Fault = { name: string; needsPeers?: boolean; strike(stage: Stage, index: number): Promise<void> };

const share = 0.6;

const faults: readonly Fault[] = [
  {
    name: 'kill',
    async strike(stage, index) {
      const again = await stage.kill(index);
      await stage.pause(stage.strikeMs * share);
      await again();
    },
  },
  { name: 'pause', strike: (stage, index) => stage.freeze(index, Math.max(3_000, stage.strikeMs * share)) },
  { name: 'slow', strike: (stage, index) => stage.slow(index, stage.strikeMs * share, 0.4) },
  {
    name: 'store-cut',
    async strike(stage, index) {
      const heal = await stage.cut('store-cut', [{ node: index, from: 'store' }], `node ${index} from the store`);
      await stage.pause(stage.strikeMs * share);
      await heal();
    },
  },
  {
    name: 'peers-cut',
    needsPeers: true,
    async strike(stage, index) {
      const nodes = stage.indexes.filter((other) => other !== index);
      const heal = await stage.cut('peers-cut', [{ node: index, from: { nodes } }], `node ${index} from its peers`);
      await stage.pause(stage.strikeMs * share);
      await heal();
    },
  },
  { name: 'store-crash', strike: (stage) => stage.storeDown(1_500, 'immediate') },
  { name: 'restart', strike: (stage, index) => stage.restart(index) },
];

const ofNode = (name: string) => name === 'kill' || name === 'pause' || name === 'restart' || name === 'slow';

export const threeAtOnce: Scenario = {
  name: 'three-at-once',
  summary: 'three faults at the same time, drawn from --seed',
  async run(stage) {
    const left = faults.filter(({ needsPeers }) => !needsPeers || stage.cluster.network.canCutPeers);
    const chosen = Array.from({ length: 3 }, () => left.splice(Math.floor(stage.random() * left.length), 1)[0]!);
    // Faults of a process strike different ones: what is paused can't be killed in good order as well.
    const free = stage.indexes;
    const strikes = chosen.map(({ name, strike }) => {
      const place = Math.floor(stage.random() * free.length);
      const index = ofNode(name) ? free.splice(place, 1)[0]! : free[place]!;
      stage.note(`drawn: ${name}, node ${index}`);
      return strike(stage, index);
    });
    const results = await Promise.allSettled(strikes);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  },
};
