// Runs Vitest over one kind of tests: `node run-tests.mjs PROJECT [filters and options of Vitest ...]`.
// Without filters, files that fail are played once more when, and only when, the hypervisor took the processor away meanwhile
// ("steal" in /proc/stat): tests with real nodes and real peers then fail for want of time, at any place. On a
// machine that has its cores, a failure is a failure at once; a test that fails both times is one everywhere.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Share of the processor, between 0 and 1, whose loss excuses a failure once. */
const starvedShare = 0.1;
const root = fileURLToPath(new URL('../..', import.meta.url));
const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');

/** Ticks of all processors since the machine started: all of them, and those that the hypervisor gave to others (proc_stat(5)). */
function processorTicks() {
  try {
    const fields = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0].trim().split(/\s+/).slice(1, 9).map(Number);
    return { all: fields.reduce((sum, ticks) => sum + ticks, 0), stolen: fields[7] ?? 0 };
  } catch {
    return { all: 0, stolen: 0 };
  }
}

/** Plays the files that match, or all; gives the exit code and, where Vitest wrote its report, what failed: test names by file. */
function play(project, options) {
  const folder = mkdtempSync(join(tmpdir(), 'starling-tests-'));
  const report = join(folder, 'report.json');
  try {
    const { status } = spawnSync(
      process.execPath,
      [vitest, 'run', '--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`, ...options],
      { cwd: root, stdio: 'inherit' },
    );
    return { code: status ?? 1, failed: status === 0 ? new Map() : failures(report) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A file that failed outside its tests stands there with the one name ''. */
function failures(report) {
  try {
    const { testResults } = JSON.parse(readFileSync(report, 'utf8'));
    const failed = testResults.filter((file) => file.status === 'failed');
    return new Map(failed.map((file) => [relative(root, file.name), failedTests(file)]));
  } catch {
    return new Map();
  }
}

function failedTests({ assertionResults }) {
  const names = assertionResults.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName);
  return new Set(names.length > 0 ? names : ['']);
}

/** Whether every test that failed passed when it was played again, and the other way round. */
function hasEachPassedOnce(first, second) {
  if (second.size === 0) return false;
  return [...second].every(([file, tests]) => {
    const before = first.get(file) ?? new Set();
    return ![tests, before].some((names) => names.has('')) && [...tests].every((test) => !before.has(test));
  });
}

const [project, ...options] = process.argv.slice(2);
const before = processorTicks();
let { code, failed } = play(project, options);
const after = processorTicks();
const stolen = (after.stolen - before.stolen) / Math.max(1, after.all - before.all);
if (options.length === 0 && failed.size > 0 && stolen >= starvedShare) {
  const files = [...failed.keys()];
  process.stderr.write(
    `\nThe hypervisor took ${Math.round(stolen * 100)} % of the processor during this run. Played once more, as the only files that failed:\n` +
      `${files.map((file) => `  ${file}\n`).join('')}\n`,
  );
  const again = play(project, files);
  ({ code } = again);
  if (code !== 0 && hasEachPassedOnce(failed, again.failed)) {
    process.stderr.write('\nOther tests failed this time, and each has passed once: taken as passed.\n');
    code = 0;
  }
}
process.exit(code);
