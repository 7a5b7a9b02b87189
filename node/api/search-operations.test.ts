import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { mailboxId, newMessage, openRoom, type Room } from '../../store/mail/fixture.js';
import { createSearchStore } from '../../store/search/index.js';
import { checkUsage } from '../cli/operate.js';
import { createIndexer, type Indexer } from '../services/indexing/index.js';
import { type OperationContext, OperationRefused } from './operation.js';
import { operations } from './operations.js';

let room: Room;
let context: OperationContext;
let indexer: Indexer;

const alice = { id: 'account1', address: 'alice@example.test', kind: 'account' };

beforeEach(async () => {
  room = await openRoom('memory');
  const { kv, mail, blobs } = room;
  const parts = { kv, clock: systemClock, random: systemRandom, logger: silentLogger };
  const search = createSearchStore(parts);
  const directory = {
    principal: async (address: string) => (address === alice.address ? alice : undefined),
    principals: async (kind: string) => (kind === 'account' ? [alice] : []),
  };
  const settings = {
    isEnabled: true,
    delayMs: 0,
    share: 1,
    patienceMs: 0,
    bearableTail: 100,
    batchMessages: 10,
    batchChars: 10_000,
    maxBodyChars: 1_000,
    languages: [],
  };
  const stores = { ...parts, mail, search, directory } as unknown as OperationContext['stores'];
  context = { stores };
  indexer = createIndexer({ ...parts, mail, blobs, search, directory: stores.directory, nodeId: 'n1', settings: () => settings });
  await mail.ensureAccount(alice.id);
  const inbox = await mailboxId(room, alice.id, 'INBOX');
  await mail.append(alice.id, [newMessage(room, [inbox], 'Subject: one\r\n\r\ntext')]);
});

afterEach(async () => {
  await indexer.stop();
  await room.close();
});

const run = (name: string, ...positionals: string[]) => operations[name]!.run(context, { positionals, flags: {} });

describe('starling search', () => {
  it('tells how far the index is, and has it made anew', async () => {
    const waiting = { address: alice.address, messages: 1, indexed: 0, modseq: null, isPending: true };
    expect(await run('search status', alice.address)).toEqual(waiting);
    await indexer.catchUp();
    const done = { address: alice.address, messages: 1, indexed: 1, modseq: 2, isPending: false };
    expect(await run('search status')).toEqual([done]);
    expect(await run('search reindex', alice.address)).toEqual({ address: alice.address, messages: 1, isPending: true });
    expect(await run('search status', alice.address)).toEqual(waiting);
    await indexer.catchUp();
    expect(await run('search status', alice.address)).toEqual(done);
  });

  it('refuses what it does not know', async () => {
    await expect(run('search status', 'nobody@example.test')).rejects.toThrow(OperationRefused);
    await expect(run('search reindex', 'nobody@example.test')).rejects.toThrow(OperationRefused);
    expect(() => checkUsage('search reindex', operations['search reindex']!, { positionals: [], flags: {} })).toThrow();
    expect(() => checkUsage('search status', operations['search status']!, { positionals: [], flags: {} })).not.toThrow();
  });
});
