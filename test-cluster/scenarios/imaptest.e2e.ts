/** Dovecot's ImapTest against a node: every script of it, and its stress mode, in which each client checks each answer against what it knows. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Imaptest, type ImaptestTarget } from '../harness/imaptest.js';
import { NodeProcess } from '../harness/node-process.js';

const imaptest = Imaptest.find();
/** Scripts for capabilities that are not announced. */
const mayBeSkipped = 6;
const stressSeconds = 10;
const everybody = ['admin', 'alice', 'bob'].map((name) => `${name}@example.test`);

describe.skipIf(!imaptest)('ImapTest', () => {
  let node: NodeProcess;
  const target = (...users: string[]): ImaptestTarget => ({ port: node.port('imaps'), users, password: node.password });

  beforeAll(async () => {
    node = await NodeProcess.start({
      settings: '[log]\nlevel = "warn"\n',
      clusterSettings: '[imap]\nmaxConnectionsPerUser = 100\n', // three users share 50 clients
    });
  });
  afterAll(async () => {
    await node?.remove();
  });

  it('finds nothing with its scripts', async () => {
    const { output, ...outcome } = await imaptest!.runScripts(target('alice@example.test', 'bob@example.test'));
    process.stderr.write(`imaptest: ${JSON.stringify(outcome)}\n`);
    expect(outcome.groups, output).toBeGreaterThanOrEqual(72);
    expect([outcome.failed, outcome.baseCommandsFailed], output).toEqual([0, 0]);
    expect(outcome.skipped, output).toBeLessThanOrEqual(mayBeSkipped);
  });

  for (const { title, clients, users } of [
    { title: '10 clients', clients: 10, users: everybody },
    { title: '50 clients', clients: 50, users: everybody },
    { title: '10 clients on one mailbox', clients: 10, users: ['bob@example.test'] },
  ]) {
    it(`hears nothing wrong with ${title}`, async () => {
      const outcome = await imaptest!.stress(target(...users), { clients, seconds: stressSeconds });
      expect(outcome.errors.slice(0, 20)).toEqual([]);
      // Each kind was tried: a stress run that could not log in would hear nothing wrong either.
      expect(Object.entries(outcome.byKind).filter(([, count]) => count === 0)).toEqual([]);
    });
  }
});
