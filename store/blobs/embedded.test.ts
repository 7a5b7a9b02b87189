import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import { openEmbeddedStore } from '../kv/index.js';
import { createBlobStore } from './store.js';
import { gather, handClock, keyCounts, linkTo, purgeFully, textOf, unlinkFrom, upload } from './test-bench.js';

describe('on the embedded store', () => {
  it('blobs of all layouts are written, read after a restart, and purged', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'blobs-'));
    const clock = handClock();
    const open = async () => {
      const kv = await openEmbeddedStore({ directory, durability: 'none' });
      return { kv, blobs: createBlobStore({ kv, clock, random: systemRandom, logger: silentLogger }) };
    };
    const contents = [Buffer.alloc(0), textOf(2_000), randomBytes(100_000), randomBytes(8_000_000), textOf(12_000_000)];
    try {
      const first = await open();
      const ids: string[] = [];
      for (const content of contents) {
        const blob = await upload(first.blobs, content, 64_000);
        await linkTo(first.kv, first.blobs, blob, 'q');
        ids.push(blob.id);
      }
      await upload(first.blobs, randomBytes(2_000_000));
      await first.kv.close();
      const second = await open();
      for (const [index, content] of contents.entries()) {
        expect((await second.blobs.read(ids[index]!)).equals(content)).toBe(true);
        expect(
          (await gather(second.blobs.stream(ids[index]!, { start: 65_000, end: 300_001 }))).equals(
            content.subarray(65_000, 300_001),
          ),
        ).toBe(true);
        await unlinkFrom(second.kv, second.blobs, ids[index]!, 'q');
      }
      await purgeFully({ blobs: second.blobs, clock }, 86_400);
      expect(await keyCounts(second.kv)).toEqual({});
      await second.kv.close();
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
