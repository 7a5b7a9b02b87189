/** The rules of Prometheus, judged by its own tool: they are valid, and each alert fires for its reason and is silent in peace. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { machineHas } from '../harness/needs.js';
import { repositoryRoot } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';

const folder = join(repositoryRoot, 'ops', 'prometheus');
const files = (ending: string) => readdirSync(folder).filter((name) => name.endsWith(ending));

async function promtool(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runCommand('promtool', args, { cwd: folder, timeoutMs: 170_000 });
  expect(code, `${stdout}${stderr}`).toBe(0);
  return stdout + stderr;
}

describe.skipIf(!machineHas('promtool'))('alert rules', () => {
  it('are valid, and so is the configuration that loads them', async () => {
    const found = await promtool('check', 'rules', '--lint=all', '--lint-fatal', ...files('.rules.yml'));
    expect([...found.matchAll(/(\d+) rules found/g)].length).toBe(files('.rules.yml').length);
    await promtool('check', 'config', '--syntax-only', 'prometheus.yml');
  });

  it('fire for their reasons and are silent in peace', async () => {
    const tests = files('.test.yml');
    expect(tests.length).toBeGreaterThanOrEqual(files('.rules.yml').length);
    const found = await promtool('test', 'rules', ...tests);
    expect(found.match(/SUCCESS/g)?.length).toBe(tests.length);
  });
});
