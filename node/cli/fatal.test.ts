/** What the last resort does, in a process of its own: it ends. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';

/** Runs a module's text with tsx; standard error is the log. */
function runModule(text: string) {
  const prelude = `
    const { createLogger } = await import('${new URL('../../ops/telemetry/index.ts', import.meta.url)}');
    const { exitOnUncaught } = await import('${new URL('./signals.ts', import.meta.url)}');
    exitOnUncaught(createLogger());
    setInterval(() => {}, 1_000);
  `;
  return spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', prelude + text], { encoding: 'utf8' });
}

describe('an error that nobody caught', () => {
  it.each([
    ['thrown', "setTimeout(() => { throw new Error('out of nowhere'); });"],
    ['a rejection', "void Promise.reject(new Error('out of nowhere'));"],
    ['no error at all', "void Promise.reject('out of nowhere');"],
  ])('(%s) is logged as fatal and ends the process with 1', (_what, text) => {
    const { status, stderr } = runModule(text);
    expect(status, stderr).toBe(1);
    const lines = stderr.trim().split('\n');
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ level: 60, err: { message: 'out of nowhere' } });
  });
});
