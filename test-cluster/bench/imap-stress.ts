/**
 * ImapTest's stress mode for a minute on a node and on a Dovecot: commands answered in a second, the processor's time that each took, and whether anything was wrong
 * with the answers. 20 clients on the INBOXes of 3 users, where nothing else is asked for.
 */
import { Dovecot } from '../harness/dovecot.js';
import { Imaptest } from '../harness/imaptest.js';
import { cpuTimeMs, round } from './figures.js';
import { type ImapServer, startDovecot, startStarling } from './imap-servers.js';
import type { BenchOptions } from './options.js';

const seconds = 60;
const users = ['admin', 'alice', 'bob'].map((name) => `${name}@example.test`);

async function stressed(
  imaptest: Imaptest,
  start: () => Promise<ImapServer>,
  load: { clients: number; users: number },
): Promise<Record<string, unknown>> {
  const server = await start();
  try {
    const target = { port: server.port, users: users.slice(0, load.users), password: server.password };
    const cpuMsBefore = cpuTimeMs(server.pid);
    const { errors, commandsPerSecond, ...outcome } = await imaptest.stress(target, { clients: load.clients, seconds });
    const cpuMsPerCommand = round((cpuTimeMs(server.pid) - cpuMsBefore) / outcome.commands);
    return {
      ...outcome,
      commandsPerSecond: round(commandsPerSecond),
      cpuMsPerCommand,
      errors: errors.length,
      firstErrors: errors.slice(0, 3),
    };
  } finally {
    await server.stop();
  }
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const imaptest = Imaptest.find();
  if (!imaptest) return { skipped: 'ImapTest is not here' };
  const load = { clients: options.clients ?? 20, users: options.users ?? users.length };
  const starling = await stressed(imaptest, () => startStarling(), load);
  if (!Dovecot.isHere) return { ...load, seconds, starling, skipped: 'Dovecot is not here' };
  const dovecot = await stressed(imaptest, () => startDovecot({ hasFullText: false }), load);
  const ratio = round(Number(starling.commandsPerSecond) / Number(dovecot.commandsPerSecond));
  return { ...load, seconds, starling, dovecot, ratio };
}
