import { describe, expect, it } from 'vitest';
import type { NodeFace, OperationContext } from './operation.js';
import { operations } from './operations.js';

const ids = ['aaaa1111ffff', 'bbbb2222ffff', 'bbbb3333ffff'];

function bench() {
  const drained: string[] = [];
  const node: NodeFace = {
    describe: async () => ({ id: ids[0], pid: 7 }),
    nodes: async () => ids.map((id, index) => ({ id, isThisNode: index === 0, hostname: `mx${index}` })),
    drain: () => void drained.push('self'),
    requestDrain: async (id) => {
      drained.push(id);
      return id !== ids[2];
    },
    certificates: () => [],
  };
  const run = (name: string, ...positionals: string[]) =>
    operations[name]!.run({ node } as unknown as OperationContext, { positionals, flags: {} });
  return { run, drained };
}

describe('node show and node drain', () => {
  it('take the beginning of an id, and this node without one', async () => {
    const { run } = bench();
    expect(await run('node show')).toEqual({ id: ids[0], isThisNode: true, hostname: 'mx0', pid: 7 });
    expect(await run('node show', 'AAAA')).toMatchObject({ pid: 7 });
    expect(await run('node show', 'bbbb2')).toEqual({ id: ids[1], isThisNode: false, hostname: 'mx1' });
    expect(await run('node show', ids[2]!)).toMatchObject({ hostname: 'mx2' });
  });

  it.each([
    ['cccc', /there is no node cccc/],
    ['bbbb', /several nodes .* begins with bbbb/],
    ['aaa', /at least 4 characters/],
    ['', /at least 4 characters/],
  ])('refuse %j in a sentence', async (id, sentence) => {
    const { run, drained } = bench();
    await expect(run('node show', id)).rejects.toThrow(sentence);
    await expect(run('node drain', id)).rejects.toThrow(sentence);
    expect(drained).toEqual([]);
  });

  it('drain this node without a store', async () => {
    const drained: string[] = [];
    const away = () => Promise.reject(new Error('the store is away'));
    const node: Partial<NodeFace> = {
      describe: async () => ({ id: ids[0] }),
      nodes: away,
      drain: () => void drained.push('self'),
    };
    const run = operations['node drain']!.run({ node } as unknown as OperationContext, { positionals: [], flags: {} });
    expect(await run).toEqual({ draining: true, id: ids[0] });
    expect(drained).toEqual(['self']);
  });

  it('drain this node by itself, and another by a wish that may come too late', async () => {
    const { run, drained } = bench();
    expect(await run('node drain')).toEqual({ draining: true, id: ids[0] });
    expect(await run('node drain', 'bbbb2')).toEqual({ draining: true, id: ids[1] });
    await expect(run('node drain', 'bbbb3')).rejects.toThrow(`there is no node ${ids[2]} any more`);
    expect(drained).toEqual(['self', ids[1], ids[2]]);
  });
});
