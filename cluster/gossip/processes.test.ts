import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { GossipMember } from './contract.js';
import { closing, start } from './test-lifecycle.js';
import { introduce, meshed, nodeIdOf, publishesTo, secret, until } from './test-nodes.js';

interface Child {
  process: ChildProcess;
  member: GossipMember;
  heard: { direct?: unknown; published?: unknown }[];
}

/** The same node id each time, as a process that is started again has it where it keeps one. */
async function startChild(incarnation: number): Promise<Child> {
  const process = fork(fileURLToPath(new URL('./test-node-process.ts', import.meta.url)), { execArgv: ['--import', 'tsx'] });
  closing.push(() => process.kill('SIGKILL'));
  process.send({ nodeId: nodeIdOf(12), secret: secret.toString('hex'), incarnation });
  const over = new AbortController();
  const ended = once(process, 'exit', { signal: over.signal }).then(([code, signal]) => {
    throw new Error(`the child ended with ${code ?? signal} before it listened`);
  });
  const listening = once(process, 'message', { signal: over.signal });
  const [member] = (await Promise.race([listening, ended])) as [GossipMember];
  over.abort();
  await Promise.allSettled([listening, ended]);
  const child: Child = { process, member, heard: [] };
  process.on('message', (message: Child['heard'][number]) => child.heard.push(message));
  return child;
}

describe('another process', () => {
  it('is killed, noticed, started again, and ends by itself when it is told to stop', async () => {
    const [a, b] = await Promise.all([start(1), start(2)]);
    const first = await startChild(1);
    const meet = (child: Child) => {
      const members = [a!.member, b!.member, child.member];
      for (const node of [a!, b!]) node.gossip.setMembers(members);
      child.process.send({ members });
    };
    meet(first);
    await until('the child', () => a!.isConnectedTo(first.member.nodeId) && b!.isConnectedTo(first.member.nodeId));
    first.process.kill('SIGKILL');
    await until('the loss', () => !a!.isConnectedTo(first.member.nodeId) && !b!.isConnectedTo(first.member.nodeId));
    await until('the two that live', () => a!.isConnectedTo(b!) && b!.isConnectedTo(a!));

    const second = await startChild(2);
    expect(second.member.peerId).not.toBe(first.member.peerId);
    meet(second);
    await until('the child', () => a!.isConnectedTo(second.member.nodeId));
    await until('a message', () => {
      a!.gossip.send(second.member.nodeId, 'welcome back');
      return second.heard.some(({ direct }) => direct === 'welcome back');
    });
    const ended = once(second.process, 'exit');
    second.process.send('stop');
    expect(await ended).toEqual([0, null]);
  });

  it('that stands still takes what is allowed to wait for it, harms nobody, and is back when it goes on', async () => {
    const [a, b] = await Promise.all([start(1), start(2)]);
    introduce(a!, b!);
    await meshed(a!, b!);
    const child = await startChild(1);
    const members = [a!.member, b!.member, child.member];
    for (const node of [a!, b!]) node.gossip.setMembers(members);
    child.process.send({ members });
    const { nodeId } = child.member;
    await until('the child', () => a!.isConnectedTo(nodeId));
    child.process.kill('SIGSTOP');
    const filling = 'x'.repeat(60_000);
    let taken = 0;
    while (a!.gossip.send(nodeId, { filling })) taken++;
    // Eight megabytes here, and what the kernel takes.
    expect(taken).toBeGreaterThan(100);
    expect(taken).toBeLessThan(1_000);
    await publishesTo(a!, [b!], 'undisturbed');
    a!.gossip.send(b!.gossip.nodeId, 'undisturbed as well');
    await until('a direct message', () => b!.bodies('direct').includes('undisturbed as well'));
    await until('the loss', () => !a!.isConnectedTo(nodeId) && !b!.isConnectedTo(nodeId));
    child.process.kill('SIGCONT');
    await until('the child again', () => a!.isConnectedTo(nodeId) && b!.isConnectedTo(nodeId));
    await until('a message', () => {
      a!.gossip.send(nodeId, 'again');
      return child.heard.some(({ direct }) => direct === 'again');
    });
  });
});
