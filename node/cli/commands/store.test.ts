import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { openEmbeddedStore } from '../../../store/kv/index.js';
import { UsageError } from '../arguments.js';
import { createProgress } from './progress.js';
import { runStore } from './store.js';

const root = mkdtempSync(join(tmpdir(), 'starling-store-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('starling store', () => {
  it.each([
    [['copy']],
    [['copy', '--from', 'embedded:a']],
    [['copy', '--from', 'nowhere', '--to', 'embedded:b']],
    [['copy', 'x', '--from', 'embedded:a', '--to', 'embedded:b']],
    [['backup']],
    [['backup', 'a', 'b']],
    [['backup', 'a', '--online']],
    [['restore', 'a', '--encrypt']],
    [['verify']],
    [['backup', 'verify']],
    [['bakcup', 'a']],
    [['verify', 's3://bucket']],
  ])('takes %j for wrong usage', async (argv) => {
    await expect(runStore(argv)).rejects.toBeInstanceOf(UsageError);
  });

  it('answers with JSON and exit codes', async () => {
    const written: string[] = [];
    const output = vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
    const silence = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    const run = async (...argv: string[]) => {
      written.length = 0;
      const code = await runStore([...argv, '--json', '--data', root]);
      return { code, answer: JSON.parse(written.join('')) as Record<string, unknown> };
    };
    try {
      const file = join(root, 'one.backup');
      expect(await run('backup', file)).toEqual({ code: 1, answer: { error: expect.stringMatching(/there is no store/) } });
      const store = await openEmbeddedStore({ directory: join(root, 'store'), durability: 'none' });
      await store.transact(async (tx) => tx.set(Buffer.from([0x15, 1, 2]), Buffer.from('value')));
      // Beside the process that has it.
      expect(await run('backup', file)).toMatchObject({ code: 0, answer: { keys: 1, isEncrypted: false } });
      await store.close();
      expect(await run('backup', 'verify', file)).toMatchObject({ code: 0, answer: { keys: 1, backend: 'embedded' } });
      expect(await run('restore', file)).toEqual({ code: 1, answer: { error: expect.stringMatching(/not empty/) } });
      const copied = await run('copy', '--from', `embedded:${join(root, 'store')}`, '--to', `embedded:${join(root, 'copied')}`);
      expect(copied).toMatchObject({ code: 0, answer: { keys: 1 } });
      expect(await run('restore', file, '--to', `embedded:${join(root, 'restored')}`)).toMatchObject({ code: 0 });
    } finally {
      output.mockRestore();
      silence.mockRestore();
    }
  });
});

it('progress is lines of JSON where nobody looks, and a bar on a terminal', () => {
  const lines: string[] = [];
  const file = { isTTY: false, write: (text: string) => lines.push(text) } as unknown as NodeJS.WriteStream;
  const display = createProgress({ json: false, stream: file });
  for (let keys = 0; keys < 100; keys++) display.update({ stage: 'copying', keys, bytes: keys });
  display.update({ stage: 'verifying', keys: 1, bytes: 1, totalBytes: 2 });
  display.stop();
  expect(lines.map((line) => (JSON.parse(line) as { stage: string }).stage)).toEqual(['copying', 'verifying']);
});
