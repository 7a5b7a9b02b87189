import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { createLogger } from '../../../ops/telemetry/index.js';
import { openEmbeddedStore } from '../../../store/kv/index.js';
import { checkConfig } from '../../config/load.js';
import { openStores } from '../../stores.js';
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
    [['restored', 'a']],
    [['backup', 'verify']],
    [['bakcup', 'a']],
    [['verify', 's3://bucket']],
    [['copy', '--from', 'embedded:a', '--to', 'embedded:b', '--blobs', 'copy']],
    [['copy', '--from', 'embedded:a', '--to', 'embedded:b', '--blobs-directory', '/x']],
    [['restore', 'a', '--blobs-directory', 'relative']],
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
      expect(await run('restored')).toEqual({ code: 0, answer: { accounts: 0 } });
      const copied = await run('copy', '--from', `embedded:${join(root, 'store')}`, '--to', `embedded:${join(root, 'copied')}`);
      expect(copied).toMatchObject({ code: 0, answer: { keys: 1 } });
      expect(await run('restore', file, '--to', `embedded:${join(root, 'restored')}`)).toMatchObject({ code: 0 });
    } finally {
      output.mockRestore();
      silence.mockRestore();
    }
  });
});

it('blobs in files go along: saved beside the node, restored elsewhere, shared by a copy, copied', async () => {
  const data = join(root, 'node');
  const at = (name: string) => join(root, name);
  const logger = createLogger({ level: 'silent' });
  const written: string[] = [];
  const told: string[] = [];
  const output = vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
  const errors = vi.spyOn(process.stderr, 'write').mockImplementation((text) => told.push(String(text)) > 0);
  const key = ['--cluster-key-file', join(data, 'cluster.key')];
  const run = async (...argv: string[]) => {
    written.length = 0;
    const code = await runStore([...argv, '--json', '--data', data, ...key]);
    return { code, answer: JSON.parse(written.join('')) as Record<string, unknown> };
  };
  /** The contents of the blob, as a node on this store reads them. */
  const open = (directory: string) =>
    openStores(checkConfig({ data, store: { backend: 'embedded', directory }, clusterKeyFile: join(data, 'cluster.key') }), {
      logger,
      createIfAbsent: false,
    });
  try {
    const firstSettings = { blobs: { storage: 'files', externalThresholdBytes: 1_000, files: { directory: at('blobs') } } };
    const node = await openStores(checkConfig({ data }), { logger, firstSettings });
    const content = Buffer.alloc(2_500_000, 'some text ');
    const writer = node.blobs.writer();
    await writer.write(content);
    const blob = await writer.finish();
    await node.kv.transact((tx) => node.blobs.linkPrepared(tx, blob, { kind: 'upload', accountId: 'a', uploadId: 'u' }));
    const file = at('whole.backup');
    expect(await run('backup', file)).toMatchObject({ code: 0, answer: { externalBlobs: { count: 1, carried: { count: 1 } } } });
    await node.close();

    // Its own directory is taken.
    const to = ['--to', `embedded:${at('elsewhere')}`];
    expect(await run('restore', file, ...to)).toEqual({ code: 1, answer: { error: expect.stringMatching(/--blobs-in-place/) } });
    expect(await run('restore', file, ...to, '--blobs-directory', at('blobs2'))).toMatchObject({ code: 0 });
    const restored = await open(at('elsewhere'));
    expect(restored.settings.current.blobs.files!.directory).toBe(at('blobs2'));
    expect((await restored.blobs.read(blob.id)).equals(content)).toBe(true);
    await restored.close();

    const copying = ['copy', '--from', `embedded:${join(data, 'store')}`, '--to'];
    const apart = [`embedded:${at('apart')}`, '--blobs', 'copy', '--blobs-directory', at('blobs3')];
    expect(await run(...copying, ...apart)).toMatchObject({ code: 0, answer: { externalBlobs: { carried: { count: 1 } } } });
    const copied = await open(at('apart'));
    expect((await copied.blobs.read(blob.id)).equals(content)).toBe(true);
    expect(readdirSync(at('blobs3'))).toContain('starling-blobs');
    await copied.close();

    expect(await run(...copying, `embedded:${at('moved')}`)).toMatchObject({
      code: 0,
      answer: { externalBlobs: { isShared: true } },
    });
    expect(told.join('')).toMatch(/now belong to the copy: the source is marked as moved/);
    await expect(open(join(data, 'store'))).rejects.toThrow(/was moved to embedded:.*moved on 20/);
    const successor = await open(at('moved'));
    expect((await successor.blobs.read(blob.id)).equals(content)).toBe(true);
    await successor.close();
  } finally {
    output.mockRestore();
    errors.mockRestore();
  }
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
