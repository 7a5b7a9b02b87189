/** A folder of dialogs as tests, for each protocol that has some. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { type KvStore, openEmbeddedStore } from '../../../store/kv/index.js';

/** Every `*.txt` of a folder as a test: on a fresh memory store, and on one embedded store that all of them share, one after the other. */
export function testDialogs(folder: string, run: (text: string, kv?: KvStore) => Promise<void>): void {
  const dialogs = readdirSync(folder)
    .filter((file) => file.endsWith('.txt'))
    .map((file) => ({ name: file.slice(0, -4), text: readFileSync(join(folder, file), 'utf8') }));

  describe('dialogs on memory', () => {
    for (const { name, text } of dialogs) it(name, () => run(text));
  });

  describe('dialogs on embedded', () => {
    let directory: string;
    let kv: KvStore;

    beforeAll(async () => {
      directory = mkdtempSync(join(tmpdir(), 'starling-dialogs-'));
      kv = await openEmbeddedStore({ directory, durability: 'none' });
    });
    afterAll(async () => {
      await kv.close();
      rmSync(directory, { recursive: true, force: true });
    });

    for (const { name, text } of dialogs) it(name, () => run(text, kv));
  });
}
