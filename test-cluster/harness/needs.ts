/** What a test needs of the machine. Absent: named in one line and skipped, except under CI, where that is a failure. */
import { spawnSync } from 'node:child_process';
import { hasProgram } from './processes.js';

/** True when all programs are there. With `CI=true` a missing one throws instead. */
export function machineHas(...programs: string[]): boolean {
  return isAllThere(programs.filter((program) => !hasProgram(program)));
}

/** The same for modules of Perl, which swaks loads when it needs them. */
export function perlHas(...modules: string[]): boolean {
  return isAllThere(modules.filter((name) => spawnSync('perl', [`-M${name}`, '-e', '1'], { stdio: 'ignore' }).status !== 0));
}

/** The same for what is named in words: true when nothing is missing. */
export function isAllThere(missing: readonly string[]): boolean {
  if (missing.length === 0) return true;
  if (process.env.CI === 'true') throw new Error(`CI must have: ${missing.join(', ')}`);
  process.stderr.write(`skipped: needs ${missing.join(', ')}\n`);
  return false;
}
