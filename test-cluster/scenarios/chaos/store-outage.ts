/** The store itself goes away: for the time of a restart, by a crash, and for as long as the run allows. Nobody is declared dead for it. */
import type { Scenario } from '../../chaos/stage.js';

const restartMs = 500;

export const storeRestart: Scenario = {
  name: 'store-restart',
  summary: 'restart the store in good order, then crash it',
  async run(stage) {
    await stage.storeDown(restartMs, 'fast');
    await stage.pause(stage.strikeMs * 0.4);
    await stage.storeDown(restartMs, 'immediate');
  },
};

export const storeDown: Scenario = {
  name: 'store-down',
  summary: 'crash the store and leave it down (for a minute, in a run of 100 s)',
  run: (stage) => stage.storeDown(stage.strikeMs, 'immediate'),
};
