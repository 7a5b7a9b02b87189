/** Nodes are told to stop in good order under load, one after another: nothing is lost, nothing is doubled, not even outside. */

import type { Scenario } from '../../chaos/stage.js';
import { UpgradeCheck } from '../../chaos/upgrade.js';

export const drain: Scenario = {
  name: 'drain',
  summary: '`starling node drain` on one node under load, then start it again',
  async run(stage) {
    await stage.restart(stage.victim, { byCommand: true });
  },
};

export const rollingRestart: Scenario = {
  name: 'rolling-restart',
  summary: 'SIGTERM and start every node in turn',
  async run(stage) {
    for (const index of stage.indexes) {
      await stage.restart(index);
      await stage.pause(1_000);
    }
  },
};

export const rollingUpgrade: Scenario = {
  name: 'rolling-upgrade',
  summary: 'restart every node in turn, from the checkout of --from to this one; formats are checked all the way',
  startsOld: true,
  async run(stage) {
    const check = await UpgradeCheck.begin(stage);
    for (const index of stage.indexes) {
      await stage.restart(index, { checkout: stage.checkout });
      await check.step();
      await stage.pause(1_000);
    }
    await check.end();
  },
};
