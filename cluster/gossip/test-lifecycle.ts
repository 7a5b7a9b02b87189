/** What a test of this room starts is stopped after it, the last first. For tests only: it needs Vitest, which child processes that use `test-nodes.ts` have not. */
import { afterEach } from 'vitest';
import { TestNode } from './test-nodes.js';

export const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A node that ends with the test. */
export async function start(...args: Parameters<typeof TestNode.start>): Promise<TestNode> {
  const node = await TestNode.start(...args);
  closing.push(() => node.gossip.stop());
  return node;
}
