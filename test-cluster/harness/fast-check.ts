/**
 * fast-check as the tests get it (`vitest.config.ts`): the cases are drawn from one seed, so that a run says something of the change under test and not of its
 * luck. `STARLING_SEED=random` draws others, a number those of that seed; a failure prints its seed either way.
 */
import { configureGlobal } from '../../node_modules/fast-check/lib/fast-check.js';

export * from '../../node_modules/fast-check/lib/fast-check.js';
export { default } from '../../node_modules/fast-check/lib/fast-check.js';

const wanted = process.env.STARLING_SEED ?? '20261122';
if (wanted !== 'random') configureGlobal({ seed: Number(wanted) });
