/**
 * Every `*.txt` beside this file is a dialog (see `testing/dialog.ts`). Each runs on a fresh memory store, and on one embedded store that all of
 * them share, one after the other.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { type KvStore, openEmbeddedStore } from '../../../store/kv/index.js';
import { runDialog } from '../testing/dialog.js';

const dialogs = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.txt'))
  .map((file) => ({ name: file.slice(0, -4), text: readFileSync(join(import.meta.dirname, file), 'utf8') }));

describe('dialogs on memory', () => {
  for (const { name, text } of dialogs) it(name, () => runDialog(text));
});

describe('dialogs on embedded', () => {
  let directory: string;
  let kv: KvStore;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'starling-imap-'));
    kv = await openEmbeddedStore({ directory, durability: 'none' });
  });
  afterAll(async () => {
    await kv.close();
    rmSync(directory, { recursive: true, force: true });
  });

  for (const { name, text } of dialogs) it(name, () => runDialog(text, kv));
});
