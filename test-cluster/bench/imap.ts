/**
 * IMAP on one large mailbox, beside a Dovecot with the same mail in it: every command in turns on the one and the other, the first time in a fresh process
 * (`firstMs`) and the median of the later ones (`ms`). `ratio` is Dovecot's time by Starling's: above 1, Starling is faster. `--only select` looks only at how
 * SELECT grows with the mailbox, `--only searchFrom,select` at these commands.
 */
import { Dovecot } from '../harness/dovecot.js';
import { appendCommand, corpusMarks, corpusMessage } from '../harness/mail-corpus.js';
import { median, round } from './figures.js';
import { runSelect } from './imap-select.js';
import { benchUser, fill, type ImapServer, meterOf, startDovecot, startStarling } from './imap-servers.js';
import type { BenchOptions } from './options.js';

interface Operation {
  name: string;
  /** `round` counts from 0: some commands undo what they did before. */
  command(round: number): string;
  rounds: number;
  /** Needs the index of the full text. */
  needsFullText?: true;
}

const operations: readonly Operation[] = [
  { name: 'fetchFlags', command: () => 'FETCH 1:* (UID FLAGS)', rounds: 7 },
  { name: 'fetchEnvelopes', command: () => 'FETCH 1:* (ENVELOPE BODYSTRUCTURE)', rounds: 4 },
  { name: 'searchUnseen', command: () => 'SEARCH UNSEEN', rounds: 9 },
  { name: 'searchFrom', command: () => `SEARCH FROM ${corpusMarks.sender}`, rounds: 7 },
  { name: 'searchText', command: () => `SEARCH TEXT ${corpusMarks.word}`, rounds: 7, needsFullText: true },
  { name: 'sortDate', command: () => 'SORT (REVERSE DATE) UTF-8 ALL', rounds: 7 },
  { name: 'threadReferences', command: () => 'THREAD REFERENCES UTF-8 ALL', rounds: 5 },
  { name: 'storeAll', command: (count) => `STORE 1:* ${count % 2 === 0 ? '+' : '-'}FLAGS (benchmark)`, rounds: 5 },
];

/** A mail server runs for weeks: both are measured when what they run has been compiled and cached, and `firstMs` tells what the first one costs. */
const selectRounds = 301;
const appendRounds = { one: 10, several: 4 } as const;
const appendMailbox = 'Appended';
const appendTextOctets = 1_400; // with its header, 2 kB
const defaultMessages = 100_000;
/**
 * Dovecot's plug-in takes a quarter of an hour and more for the texts of a hundred thousand messages, and once it is there it answers all searches: beyond this,
 * SEARCH TEXT is measured on a mailbox of this size, on servers of its own.
 */
const maxFullTextMessages = 10_000;

interface Figures {
  firstMs: number;
  ms: number;
  /** FETCH answers, or numbers in the answer: what both servers must agree on. */
  answers?: number;
}

function answersIn(text: string): number {
  const fetches = text.match(/^\* \d+ FETCH /gm)?.length ?? 0;
  if (fetches > 0) return fetches;
  const line = /^\* (?:SEARCH|SORT|THREAD)(.*)$/m.exec(text);
  return line?.[1]?.match(/\d+/g)?.length ?? 0;
}

/** Runs `work` on each server, in turns. */
async function inTurns(servers: readonly ImapServer[], work: (server: ImapServer) => Promise<void>): Promise<void> {
  for (const server of servers) await work(server);
}

type Times = Map<ImapServer, { ms: number[]; answers?: number | undefined }>;

const timesFor = (servers: readonly ImapServer[]): Times => new Map(servers.map((server) => [server, { ms: [] }]));

function figuresOf(times: Times, server: ImapServer): Figures {
  const { ms, answers } = times.get(server)!;
  return { firstMs: round(ms[0]!), ms: round(median(ms.slice(1))), ...(answers === undefined ? {} : { answers }) };
}

/** Both servers' figures of one operation, and how they compare. */
function comparison(servers: readonly ImapServer[], times: Times): Record<string, unknown> {
  const [starling, dovecot] = servers.map((server) => figuresOf(times, server));
  if (!dovecot) return { starling };
  const differs = starling!.answers !== dovecot.answers;
  return {
    starling,
    dovecot,
    ratio: round(dovecot.ms / starling!.ms),
    firstRatio: round(dovecot.firstMs / starling!.firstMs),
    ...(differs ? { differs: true } : {}),
  };
}

/** SELECT, each time on a connection of its own. */
async function selects(servers: readonly ImapServer[]): Promise<Times> {
  const times = timesFor(servers);
  for (let count = 0; count < selectRounds; count++)
    await inTurns(servers, async (server) => {
      const meter = await meterOf(server);
      times.get(server)!.ms.push((await meter.command('SELECT INBOX')).ms);
      await meter.close();
    });
  return times;
}

/** The operation again and again, on connections that stay. */
async function repeated(servers: readonly ImapServer[], operation: Operation): Promise<Times | string> {
  const times = timesFor(servers);
  const meters = new Map(await Promise.all(servers.map(async (server) => [server, await meterOf(server)] as const)));
  try {
    for (const meter of meters.values()) await meter.command('SELECT INBOX');
    for (let count = 0; count < operation.rounds; count++)
      await inTurns(servers, async (server) => {
        const { ms, text } = await meters.get(server)!.command(operation.command(count), count === 1);
        const record = times.get(server)!;
        record.ms.push(ms);
        if (count === 1) record.answers = answersIn(text);
      });
    return times;
  } catch (error) {
    return (error as Error).message; // a command that a server does not know
  } finally {
    for (const meter of meters.values()) await meter.close();
  }
}

/** Milliseconds for each message, of `clients` that file one message after another. */
async function appendMs(server: ImapServer, clients: number, each: number, firstIndex: number): Promise<number> {
  const meters = await Promise.all(Array.from({ length: clients }, () => meterOf(server)));
  const commands = Array.from({ length: clients * each }, (_, index) =>
    appendCommand(appendMailbox, [corpusMessage(firstIndex + index, appendTextOctets)]),
  );
  const start = performance.now();
  await Promise.all(
    meters.map(async (meter, client) => {
      for (let index = 0; index < each; index++) await meter.command(commands[client * each + index]!);
    }),
  );
  const ms = performance.now() - start;
  for (const meter of meters) await meter.close();
  return ms / (clients * each);
}

async function appends(servers: readonly ImapServer[], clients: number): Promise<Times> {
  const times = timesFor(servers);
  const each = clients === 1 ? 200 : 40;
  for (let count = 0; count < (clients === 1 ? appendRounds.one : appendRounds.several); count++)
    await inTurns(servers, async (server) => {
      times.get(server)!.ms.push(await appendMs(server, clients, each, count * clients * each));
    });
  return times;
}

/** What of the benchmark is wanted; all without `--only`. */
type Wanted = (name: string) => boolean;

/** Both servers with the same mail, each in a process that has not seen it yet. Answers the messages that were filed in a second. */
async function prepare(servers: readonly ImapServer[], messages: number, hasFullText: boolean): Promise<Record<string, unknown>> {
  const filedPerSecond: Record<string, number> = {};
  let isIndexed = true;
  for (const server of servers) {
    filedPerSecond[server.name] = round(await fill(server, 'INBOX', messages));
    // Starling indexes all the time: it is to be done with that before anything is measured.
    if (hasFullText || server.name === 'starling') isIndexed = (await server.indexed(benchUser)) && isIndexed;
    const meter = await meterOf(server);
    await meter.command(`CREATE ${appendMailbox}`);
    await meter.close();
  }
  for (const server of servers) await server.restart();
  return { filedPerSecond, ...(isIndexed ? {} : { indexState: 'unknown' }) };
}

/** Starts what is here of the two servers, and stops them after `work`. */
async function withServers<T>(hasFullText: boolean, work: (servers: readonly ImapServer[]) => Promise<T>): Promise<T> {
  const servers: ImapServer[] = [];
  try {
    servers.push(await startStarling());
    if (Dovecot.isHere) servers.push(await startDovecot({ hasFullText }));
    return await work(servers);
  } finally {
    for (const server of servers) await server.stop();
  }
}

async function measure(
  servers: readonly ImapServer[],
  messages: number,
  hasFullText: boolean,
  isWanted: Wanted,
): Promise<Record<string, Record<string, unknown>>> {
  const results: Record<string, Record<string, unknown>> = {
    filled: { messages, ...(await prepare(servers, messages, hasFullText)) },
  };
  if (isWanted('select')) results.select = comparison(servers, await selects(servers));
  for (const operation of operations) {
    if (!isWanted(operation.name)) continue;
    const times = await repeated(servers, operation);
    results[operation.name] = typeof times === 'string' ? { skipped: times } : comparison(servers, times);
  }
  for (const clients of [1, 20]) {
    if (isWanted(`append${clients}`))
      results[`append${clients}`] = { clients, ...comparison(servers, await appends(servers, clients)) };
  }
  return results;
}

/** All that is wanted; texts, where the mailbox is too large for Dovecot's plug-in, in a smaller one. */
async function measureAll(messages: number, isWanted: Wanted): Promise<Record<string, Record<string, unknown>>> {
  const needsFullText = (name: string) => operations.some((operation) => operation.name === name && operation.needsFullText);
  if (messages <= maxFullTextMessages) return withServers(true, (servers) => measure(servers, messages, true, isWanted));
  const isOther = (name: string) => isWanted(name) && !needsFullText(name);
  const results = await withServers(false, (servers) => measure(servers, messages, false, isOther));
  if (!operations.some(({ name }) => isWanted(name) && needsFullText(name))) return results;
  const isText = (name: string) => isWanted(name) && needsFullText(name);
  const { filled, ...ofTexts } = await withServers(true, (servers) => measure(servers, maxFullTextMessages, true, isText));
  for (const [name, result] of Object.entries(ofTexts)) results[name] = { messages: filled!.messages, ...result };
  return results;
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const messages = options.messages ?? defaultMessages;
  if (options.only === 'select') return runSelect(messages);
  const only = options.only?.split(',');
  const known = ['select', 'append1', 'append20', ...operations.map(({ name }) => name)];
  const unknown = only?.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`--only takes some of ${known.join(', ')}, not '${unknown}'`);
  const results = await measureAll(messages, (name) => !only || only.includes(name));
  const ratios = Object.values(results).flatMap(({ ratio }) => (typeof ratio === 'number' ? [ratio] : []));
  return {
    messages,
    dovecotVersion: Dovecot.version,
    dovecotFullText: Dovecot.hasFullText,
    ...results,
    ...(ratios.length > 0
      ? { medianRatio: median(ratios), lowestRatio: Math.min(...ratios) }
      : { skipped: 'Dovecot is not here' }),
  };
}
