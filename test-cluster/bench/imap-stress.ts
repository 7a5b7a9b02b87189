/** ImapTest's stress mode, 20 clients for a minute, on a node and on a Dovecot: commands answered in a second, and whether anything was wrong with the answers. */
import { Dovecot } from '../harness/dovecot.js';
import { Imaptest } from '../harness/imaptest.js';
import { round } from './figures.js';
import { type ImapServer, startDovecot, startStarling } from './imap-servers.js';

const clients = 20;
const seconds = 60;
const users = ['admin', 'alice', 'bob'].map((name) => `${name}@example.test`);

async function stressed(imaptest: Imaptest, start: () => Promise<ImapServer>): Promise<Record<string, unknown>> {
  const server = await start();
  try {
    const target = { port: server.port, users, password: server.password };
    const { errors, commandsPerSecond, ...outcome } = await imaptest.stress(target, { clients, seconds });
    return { ...outcome, commandsPerSecond: round(commandsPerSecond), errors: errors.length, firstErrors: errors.slice(0, 3) };
  } finally {
    await server.stop();
  }
}

export async function run(): Promise<Record<string, unknown>> {
  const imaptest = Imaptest.find();
  if (!imaptest) return { skipped: 'ImapTest is not here' };
  const starling = await stressed(imaptest, () => startStarling());
  if (!Dovecot.isHere) return { clients, seconds, starling, skipped: 'Dovecot is not here' };
  const dovecot = await stressed(imaptest, () => startDovecot({ hasFullText: false }));
  const ratio = round(Number(starling.commandsPerSecond) / Number(dovecot.commandsPerSecond));
  return { clients, seconds, starling, dovecot, ratio };
}
