import { describe, expect, it } from 'vitest';
import { VirtualTime } from '../../../cluster/testing/virtual-time.js';
import { createEndings } from './endings.js';

function bench() {
  const time = new VirtualTime();
  return { time, ending: createEndings(time.clock(), () => new Error('late')) };
}

describe('signals that end deliveries', () => {
  it('are aborted when the time is over, and when all deliveries end', async () => {
    const { time, ending } = bench();
    const node = new AbortController();
    const first = ending(node.signal, 1000);
    const second = ending(node.signal, 5000);
    await time.advance(1000);
    expect(first.signal).toMatchObject({ aborted: true, reason: new Error('late') });
    expect(second.signal.aborted).toBe(false);
    node.abort(new Error('stopping'));
    expect(second.signal).toMatchObject({ aborted: true, reason: new Error('stopping') });
    expect(ending(node.signal, 1000).signal.aborted).toBe(true);
  });

  it('serve the next delivery when they were not needed, and never one that was ended before', async () => {
    const { time, ending } = bench();
    const node = new AbortController();
    const first = ending(node.signal, 1000);
    first.over();
    const second = ending(node.signal, 1000);
    expect(second.signal).toBe(first.signal);
    // Of the first one, nothing is left that could end the second.
    await time.advance(999);
    expect(second.signal.aborted).toBe(false);
    await time.advance(1);
    expect(second.signal.aborted).toBe(true);
    second.over();
    expect(ending(node.signal, 1000).signal).not.toBe(second.signal);
  });

  it('that are spare hear nothing of the end of others', () => {
    const { ending } = bench();
    const one = new AbortController();
    const first = ending(one.signal, 1000);
    first.over();
    one.abort();
    expect(ending(new AbortController().signal, 1000).signal.aborted).toBe(false);
  });
});
