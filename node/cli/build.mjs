// Compiles the sources into dist/ when they are newer than what was compiled last; does nothing where only dist/ was installed.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const stamp = join(root, 'dist', '.compiled');
const compiler = join(root, 'node_modules', 'typescript7', 'bin', 'tsc');

function newestSourceMs(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) newest = Math.max(newest, newestSourceMs(path));
    else if (entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts')) newest = Math.max(newest, statSync(path).mtimeMs);
  }
  return newest;
}

/** Compiles where needed. Ends the process with the compiler's words when that fails. */
export function compileIfStale() {
  if (!existsSync(compiler) || !existsSync(join(root, 'tsconfig.build.json'))) return;
  const rooms = ['node', 'cluster', 'store', 'protocols', 'ops', 'test-cluster']
    .map((room) => join(root, room))
    .filter(existsSync);
  const newest = Math.max(...rooms.map(newestSourceMs), statSync(join(root, 'package-lock.json')).mtimeMs);
  if (existsSync(stamp) && statSync(stamp).mtimeMs >= newest) return;
  process.stderr.write('compiling ...\n');
  rmSync(stamp, { force: true });
  const result = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root, stdio: ['ignore', 2, 2] });
  if (result.status !== 0) process.exit(1);
  mkdirSync(join(root, 'dist'), { recursive: true });
  writeFileSync(stamp, '');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) compileIfStale();
