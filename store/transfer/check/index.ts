/** Checks a whole store and, where asked to, mends what can be mended without losing anything. */
import { refuseUnfinished } from '../copy.js';
import { plainReader } from '../rows.js';
import { checkBlobs } from './blobs.js';
import type { CheckResult } from './contract.js';
import { checkDirectory } from './directory.js';
import { type CheckOptions, Inspection } from './inspection.js';
import { checkLimits } from './limits.js';
import { checkMail } from './mail.js';
import { checkQueue } from './queue.js';
import { checkSearch } from './search.js';

export type { CheckArea, CheckProgress, CheckResult, Finding } from './contract.js';
export type { CheckOptions } from './inspection.js';

/**
 * Looks at everything in reads of bounded size, beside working nodes too: whatever looks wrong is looked at again in one transaction before it is told.
 * Throws `TransferRefused` for a store that is only half of one, `TransferInterrupted`, `KvError`.
 */
export async function checkStore(options: CheckOptions): Promise<CheckResult> {
  const { kv } = options;
  await refuseUnfinished(plainReader(kv));
  const inspection = new Inspection(options);
  await checkDirectory(inspection);
  await checkMail(inspection);
  await checkQueue(inspection);
  await checkBlobs(inspection);
  await checkLimits(inspection);
  await checkSearch(inspection);
  return inspection.result;
}
