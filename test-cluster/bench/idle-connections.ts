/**
 * What connections in IDLE cost (over TLS, all with the same mailbox selected): resident memory of the node for each of them, its CPU while nothing happens, and how
 * long it takes until a change has reached them all. Beside, a Dovecot with fewer of them: each has a process of its own there.
 */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { Dovecot } from '../harness/dovecot.js';
import { ImapMeter } from '../harness/imap-meter.js';
import { appendCommand, corpusMessage } from '../harness/mail-corpus.js';
import { percentile, residentBytes, round } from './figures.js';
import { benchUser, fill, type ImapServer, meterOf, startDovecot, startStarling } from './imap-servers.js';
import type { BenchOptions } from './options.js';

const defaultConnections = 10_000;
const peerConnections = 500;
const openedAtOnce = 50;
/** Linux gives about 28,000 ports to one pair of addresses. */
const connectionsPerAddress = 20_000;
const quietSeconds = 30;
const pushRounds = 5;
const peerPushRounds = 5;
const pushWithinMs = 60_000;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Seconds of CPU that a process has used. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100; // user and system time, in ticks of 10 ms
}

/** The memory that would come free if the processes ended: shared pages count by their share. */
function proportionalBytes(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const found = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
    return sum + Number(found?.[1] ?? 0) * 1_024;
  }, 0);
}

/** Throws where the system does not let this process, and the node that it starts, have so many files open. */
function checkFileLimit(connections: number): void {
  const found = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
  const limit = Number(found?.[1] ?? 0);
  if (limit < connections + 200)
    throw new Error(`${connections} connections need as many open files; this process may have ${limit} (raise it: ulimit -n)`);
}

class IdleCrowd {
  /** What a push is known by. */
  private mark = ' FETCH (';
  private heard = 0;
  private wanted = Number.POSITIVE_INFINITY;
  private done: (() => void) | undefined;
  private arrivals: number[] = [];
  private lost = 0;

  private constructor(private readonly meters: readonly ImapMeter[]) {
    for (const meter of meters) {
      meter.raw.on('data', (chunk: Buffer) => this.take(chunk));
      meter.raw.on('close', () => this.lost++);
    }
  }

  /** Opens them a few at a time. */
  static async of(server: ImapServer, count: number): Promise<IdleCrowd> {
    const meters: ImapMeter[] = [];
    const login = { port: server.port, user: benchUser, password: server.password, usesScram: server.name === 'starling' };
    while (meters.length < count) {
      const some = Array.from({ length: Math.min(openedAtOnce, count - meters.length) }, async (_, index) => {
        const localAddress = `127.0.0.${2 + Math.floor((meters.length + index) / connectionsPerAddress)}`;
        const meter = await ImapMeter.connect({ ...login, localAddress });
        await meter.command('SELECT INBOX');
        const begun = once(meter.raw, 'data');
        meter.raw.write('i IDLE\r\n');
        await begun;
        return meter;
      });
      meters.push(...(await Promise.all(some)));
    }
    return new IdleCrowd(meters);
  }

  /** A push is one small write: what matters is that it says that something happened. */
  private take(chunk: Buffer): void {
    if (!chunk.includes(this.mark)) return;
    this.heard++;
    this.arrivals.push(performance.now());
    if (this.heard >= this.wanted) this.done?.();
  }

  /** Does `change`, and answers how many ms later each connection heard `mark`. Throws if not all do. */
  async push(mark: string, change: () => Promise<unknown>): Promise<number[]> {
    Object.assign(this, { mark, heard: 0, arrivals: [], wanted: this.meters.length });
    const all = new Promise<void>((resolve) => {
      this.done = resolve;
    });
    const start = performance.now();
    await change();
    const late = pause(pushWithinMs).then(() => {
      throw new Error(`${this.heard} of ${this.meters.length} connections heard of it (${this.lost} are gone)`);
    });
    late.catch(() => undefined);
    await Promise.race([all, late]);
    return this.arrivals.map((at) => at - start);
  }

  close(): void {
    for (const meter of this.meters) meter.raw.destroy();
  }
}

/** How long a change of flags and a new message take to reach half of them, and the last. */
async function pushFigures(server: ImapServer, crowd: IdleCrowd, rounds: number): Promise<Record<string, number>> {
  const meter = await meterOf(server);
  await meter.command('SELECT INBOX');
  const lasts: Record<'flags' | 'message', number[]> = { flags: [], message: [] };
  const halves: number[] = [];
  for (let count = 0; count < rounds; count++) {
    const store = `STORE 1 ${count % 2 === 0 ? '+' : '-'}FLAGS (pushed)`;
    const flags = await crowd.push(' FETCH (', () => meter.command(store));
    halves.push(percentile(flags, 0.5));
    lasts.flags.push(Math.max(...flags));
    await pause(1_000);
    const arrival = await crowd.push(' EXISTS', () => meter.command(appendCommand('INBOX', [corpusMessage(1_000 + count)])));
    lasts.message.push(Math.max(...arrival));
    await pause(1_000);
  }
  await meter.close();
  return {
    flagsHalfMs: round(percentile(halves, 0.5)),
    flagsAllMs: round(percentile(lasts.flags, 0.5)),
    flagsAllWorstMs: round(Math.max(...lasts.flags)),
    messageAllMs: round(percentile(lasts.message, 0.5)),
    messageAllWorstMs: round(Math.max(...lasts.message)),
  };
}

async function measureStarling(connections: number): Promise<Record<string, unknown>> {
  const server = await startStarling(connections + 1_000);
  try {
    await fill(server, 'INBOX', 100);
    // What the first sessions cost once.
    (await IdleCrowd.of(server, 200)).close();
    await pause(3_000);
    const resident = () => residentBytes(readFileSync(`/proc/${server.node.pid}/status`, 'utf8'), 'VmRSS');
    const before = resident();
    const start = performance.now();
    const crowd = await IdleCrowd.of(server, connections);
    const openedPerSecond = connections / ((performance.now() - start) / 1_000);
    await pause(5_000);
    const grown = resident() - before;
    const cpuBefore = cpuSeconds(server.node.pid);
    await pause(quietSeconds * 1_000);
    const cpu = cpuSeconds(server.node.pid) - cpuBefore;
    const push = await pushFigures(server, crowd, pushRounds);
    crowd.close();
    return {
      connections,
      openedPerSecond: round(openedPerSecond),
      bytesPerConnection: round(grown / connections),
      idleCpuPercent: round((cpu / quietSeconds) * 100),
      ...push,
    };
  } finally {
    await server.stop();
  }
}

/** Instances and watches that Dovecot needs for one process per connection: with fewer it looks for news every half a minute only. */
const inotifyLimits = { max_user_instances: 2 * peerConnections + 256, max_user_watches: 20 * peerConnections + 8_192 };

/** Raises what is lower, as far as this process may. Answers how to put it back. */
function raiseInotifyLimits(): () => void {
  const before = Object.entries(inotifyLimits).map(([name, wanted]) => {
    const file = `/proc/sys/fs/inotify/${name}`;
    const present = readFileSync(file, 'utf8').trim();
    return { file, present, wanted };
  });
  const raised = before.filter(({ file, present, wanted }) => Number(present) < wanted && written(file, String(wanted)));
  return () => {
    for (const { file, present } of raised) written(file, present);
  };
}

/** False where this process may not. */
function written(file: string, value: string): boolean {
  try {
    writeFileSync(file, value);
    return true;
  } catch {
    return false;
  }
}

async function measureDovecot(): Promise<Record<string, unknown>> {
  const restoreLimits = raiseInotifyLimits();
  try {
    return await measureRaisedDovecot();
  } finally {
    restoreLimits();
  }
}

async function measureRaisedDovecot(): Promise<Record<string, unknown>> {
  const server = await startDovecot({ maxClients: peerConnections + 50 });
  try {
    await fill(server, 'INBOX', 100);
    const pids = () => [...server.dovecot.processes('imap'), ...server.dovecot.processes('imap-login')];
    const before = proportionalBytes(pids());
    const crowd = await IdleCrowd.of(server, peerConnections);
    await pause(5_000);
    const grown = proportionalBytes(pids()) - before;
    const cpuOf = () => pids().reduce((sum, pid) => sum + cpuSeconds(pid), 0);
    const cpuBefore = cpuOf();
    await pause(quietSeconds * 1_000);
    const cpu = cpuOf() - cpuBefore;
    const push = await pushFigures(server, crowd, peerPushRounds);
    crowd.close();
    return {
      connections: peerConnections,
      inotifyInstances: Number(readFileSync('/proc/sys/fs/inotify/max_user_instances', 'utf8')),
      bytesPerConnection: round(grown / peerConnections),
      idleCpuPercent: round((cpu / quietSeconds) * 100),
      ...push,
    };
  } finally {
    await server.stop();
  }
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const connections = options.connections ?? defaultConnections;
  checkFileLimit(connections);
  const starling = await measureStarling(connections);
  if (!Dovecot.isHere) return { starling, skipped: 'Dovecot is not here' };
  const dovecot = await measureDovecot();
  return { starling, dovecot, bytesRatio: round(Number(dovecot.bytesPerConnection) / Number(starling.bytesPerConnection)) };
}
