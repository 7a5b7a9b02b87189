/** What a test needs of the machine. Absent: named in one line and skipped, except under CI, where that is a failure. */
import { hasProgram } from './processes.js';

/** True when all programs are there. With `CI=true` a missing one throws instead. */
export function machineHas(...programs: string[]): boolean {
  const missing = programs.filter((program) => !hasProgram(program));
  if (missing.length === 0) return true;
  if (process.env.CI === 'true') throw new Error(`CI must have: ${missing.join(', ')}`);
  process.stderr.write(`skipped: needs ${missing.join(', ')}\n`);
  return false;
}
