/** One node has a third of its time only, in bursts: it is slow, and alive. */
import type { Scenario } from '../../chaos/stage.js';

const share = 0.3;

export const slowNode: Scenario = {
  name: 'slow-node',
  summary: 'SIGSTOP and SIGCONT one node in bursts, so that it has 30 % of its time',
  run: (stage) => stage.slow(stage.victim, stage.strikeMs * 0.8, share),
};
