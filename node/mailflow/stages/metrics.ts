/** What the stages count. */
import { counter } from '../../../ops/telemetry/index.js';

/** `check`: rate, concurrency, greylist, blocklist, spam-trap, quota, refuse; `result`: refused, deferred, dropped. */
export const stageVerdicts = counter('starling_stage_verdicts_total', 'Mail that a check on the way in turned away.', [
  'check',
  'result',
]);

/** A check that could not be made, so that mail went on without it. `check` as above, and ban. */
export const stageTrouble = counter('starling_stage_trouble_total', 'Checks on the way in that could not be made.', ['check']);

/** `script`: its name in the settings; `result`: kept, edited, refused, deferred, discarded, redirected, failed. */
export const stageScripts = counter('starling_stage_scripts_total', 'Runs of scripts on the way in, by what came of them.', [
  'stage',
  'script',
  'result',
]);
