/** Whether SELECT costs more in a mailbox of a million messages than in one of a thousand: cold (the first of a fresh process) and warm. */
import { median, round } from './figures.js';
import { fill, type ImapServer, meterOf, startStarling } from './imap-servers.js';

const smallMailbox = { name: 'Small', messages: 1_000 };
const textOctets = 300;
/** Until a fresh process has read, compiled and tidied up what comes with the first SELECT. */
const warmUpRounds = 50;
const warmRounds = 50;
const coldRounds = 3;

/** The first SELECT of a fresh process, several times, and the later ones. */
async function selectTimes(server: ImapServer, mailbox: string): Promise<{ coldMs: number; warmMs: number }> {
  const cold: number[] = [];
  const warm: number[] = [];
  for (let count = 0; count < coldRounds; count++) {
    await server.restart();
    const meter = await meterOf(server);
    cold.push((await meter.command(`SELECT ${mailbox}`)).ms);
    await meter.close();
  }
  for (let count = 0; count < warmUpRounds + warmRounds; count++) {
    const meter = await meterOf(server);
    const { ms } = await meter.command(`SELECT ${mailbox}`);
    if (count >= warmUpRounds) warm.push(ms);
    await meter.close();
  }
  return { coldMs: round(median(cold)), warmMs: round(median(warm)) };
}

/** Fills the inbox with `messages` short messages. */
export async function runSelect(messages: number): Promise<Record<string, unknown>> {
  // SELECT has nothing to do with the index, and a million messages take long to be indexed.
  const server = await startStarling(undefined, false);
  try {
    await fill(server, smallMailbox.name, smallMailbox.messages, textOctets);
    const filedPerSecond = round(await fill(server, 'INBOX', messages, textOctets));
    const small = await selectTimes(server, smallMailbox.name);
    const large = await selectTimes(server, 'INBOX');
    return {
      messages,
      filedPerSecond,
      small: { messages: smallMailbox.messages, ...small },
      large: { messages, ...large },
      warmRatio: round(large.warmMs / small.warmMs),
    };
  } finally {
    await server.stop();
  }
}
