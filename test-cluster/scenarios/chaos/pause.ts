/**
 * A node stands still (SIGSTOP) and goes on. For longer than a term: it is declared dead meanwhile, and wakes to find that it can save nothing any more. For
 * two seconds: nobody may be declared dead.
 */
import type { Scenario } from '../../chaos/stage.js';

/** A term of 10 s and what it takes to notice. */
const longMs = 13_000;
const shortMs = 2_000;

export const pauseLong: Scenario = {
  name: 'pause-long',
  summary: 'SIGSTOP one node for longer than a term, then let it go on',
  run: (stage) => stage.freeze(stage.victim, Math.max(longMs, stage.strikeMs * 0.7)),
};

export const pauseShort: Scenario = {
  name: 'pause-short',
  summary: 'SIGSTOP each node for 2 s in turn: nobody may be declared dead',
  async run(stage) {
    for (const index of stage.indexes) {
      await stage.freeze(index, shortMs);
      await stage.pause(Math.max(1_000, stage.strikeMs / stage.nodes.length - shortMs));
    }
  },
};
