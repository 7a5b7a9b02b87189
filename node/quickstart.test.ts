import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { createBlobStore } from '../store/blobs/index.js';
import { createDirectory } from '../store/directory/index.js';
import { MemoryDatabase, openMemoryStore } from '../store/kv/index.js';
import { createMailStore } from '../store/mail/index.js';
import { checkConfig } from './config/load.js';
import { quickstartAccounts, quickstartConfig } from './config/quickstart.js';
import { prepareQuickstart, quickstartGreeting } from './quickstart.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-quickstart-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A node's rooms on a store that it shares with others. */
function openNode(database: MemoryDatabase) {
  const parts = { kv: openMemoryStore({ database }), clock: systemClock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(parts);
  return { kv: parts.kv, directory: createDirectory(parts), mail: createMailStore({ ...parts, blobs }) };
}

describe('the quickstart on a store that several nodes share', () => {
  it('makes each account once, though all start at the same time', async () => {
    const database = new MemoryDatabase();
    const nodes = [openNode(database), openNode(database), openNode(database)];
    const made = await Promise.all(
      nodes.map((node, at) => prepareQuickstart(node, mkdtempSync(join(folder, `${at}-`)), 'the same for all')),
    );
    expect(made).toEqual(nodes.map(() => quickstartAccounts.map((address) => ({ address, password: 'the same for all' }))));
    expect((await nodes[0]!.directory.principals('account')).map(({ address }) => address).sort()).toEqual(quickstartAccounts);
  });

  it('takes accounts as another node has made them, and says that it does not know their passwords', async () => {
    const database = new MemoryDatabase();
    const [first, second] = [openNode(database), openNode(database)];
    const [one, two] = [mkdtempSync(join(folder, 'one-')), mkdtempSync(join(folder, 'two-'))];
    const made = await prepareQuickstart(first, one, undefined);
    for (const password of [undefined, 'another password']) {
      const found = await prepareQuickstart(second, two, password);
      expect(found).toEqual(quickstartAccounts.map((address) => ({ address })));
      expect(readFileSync(join(two, 'quickstart.json'), 'utf8')).not.toContain('password');
      expect(quickstartGreeting(checkConfig(quickstartConfig(two, 0)), found, false)).toMatch(
        /alice@\S+ +\(made by another node/,
      );
    }
    for (const { address, password } of made)
      expect(await second.directory.verifyPassword(address, password!)).toMatchObject({ ok: true });
    // The first one starts again, and still knows them.
    expect(await prepareQuickstart(first, one, undefined)).toEqual(made);
  });
});
