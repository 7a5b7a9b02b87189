import { hash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { systemRandom } from '../../ops/telemetry/index.js';
import { BlobIds, isIdOf } from './ids.js';
import { handClock } from './test-bench.js';

const digestOf = (text: string) => hash('sha256', text, 'hex');

describe('ids of blobs', () => {
  const clock = handClock();
  const random = { ...systemRandom, bytes: (count: number) => Buffer.alloc(count, 0xa7) };
  const ids = new BlobIds({ clock, random, mayUseTime: () => true });

  it('are the digest where the content may come again', () => {
    expect(ids.of(digestOf('a'), false)).toBe(digestOf('a'));
  });

  it('begin with stripe and time where it is unique, and end as the digest does', () => {
    clock.nowSeconds = 1_700_000_000;
    const time = (1_700_000_000_000).toString(16).padStart(12, '0');
    expect(ids.of(digestOf('a'), true)).toBe(`a7${time}${digestOf('a').slice(14)}`);
  });

  it('sort by time', () => {
    const made = [0, 1, 1_700_000_000, 1_700_000_001, 4_000_000_000].map((seconds) => {
      clock.nowSeconds = seconds;
      return ids.of(digestOf(`${seconds}`), true);
    });
    expect(made).toEqual([...made].sort());
    for (const id of made) expect(id).toMatch(/^[0-9a-f]{64}$/);
  });

  it('are digests as long as some node does not know better', () => {
    let knows = false;
    const careful = new BlobIds({ clock, random, mayUseTime: () => knows });
    expect(careful.of(digestOf('a'), true)).toBe(digestOf('a'));
    knows = true;
    expect(careful.of(digestOf('a'), true)).not.toBe(digestOf('a'));
  });

  it('belong to their content and to no other', () => {
    for (const isUnique of [false, true]) {
      const id = ids.of(digestOf('a'), isUnique);
      expect(isIdOf(id, digestOf('a'))).toBe(true);
      expect(isIdOf(id, digestOf('b'))).toBe(false);
      expect(isIdOf(id.slice(0, -1), digestOf('a'))).toBe(false);
    }
  });
});
