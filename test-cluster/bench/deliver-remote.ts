/**
 * How fast a queue drains to another server: 5,000 messages of 2 kB for 50 domains, all by one of Postfix's smtp-sinks, from a Starling node and from a Postfix on the
 * same disk with the same number of deliveries at a time, in turns. Counted by the sink, from the first message to the last;
 * with the processor time that each took. `--messages` takes another number.
 */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../ops/telemetry/index.js';
import { openEmbeddedStore } from '../../store/kv/index.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { freePort } from '../harness/ports.js';
import { Postfix } from '../harness/postfix.js';
import { runCommand, searchPath, startProcess, waitFor } from '../harness/processes.js';
import { median, round } from './figures.js';
import type { BenchOptions } from './options.js';
import { fillQueue } from './queue-fill.js';

const messageBytes = 2_000;
const domains = 50;
const concurrency = 64;
const rounds = 3;
const patienceMs = 300_000;
/** Delivered by each that was started, before the messages that count. */
const warmUpMessages = 5_000;
/** The queue is filled and the node started within this. */
const startSeconds = 20;
/** The first messages are delivered within this. */
const warmUpSeconds = 30;

/** What one drain took. */
interface Drained {
  messagesPerSecond: number;
  /** Of all processes together, user and system. */
  cpuMsPerMessage: number;
}

/** Processor time of a process and all that it has started, seconds (Linux). Those that have ended count once they were waited for. */
function cpuSeconds(rootPid: number): number {
  const ticksPerSecond = 100;
  const rows = readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .flatMap((name) => {
      try {
        // What comes after the name in parentheses, which may hold anything.
        const fields = readFileSync(`/proc/${name}/stat`, 'utf8')
          .replace(/^.*\) /s, '')
          .split(' ');
        const ticks = [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
        return [{ pid: Number(name), parent: Number(fields[1]), ticks }];
      } catch {
        return []; // it has ended meanwhile
      }
    });
  const members = new Set([rootPid]);
  for (let size = 0; size !== members.size; ) {
    size = members.size;
    for (const { pid, parent } of rows) if (members.has(parent)) members.add(pid);
  }
  return rows.filter(({ pid }) => members.has(pid)).reduce((sum, { ticks }) => sum + ticks, 0) / ticksPerSecond;
}

/** Takes everything and counts. */
class CountingSink {
  /** Of the last `begin`. */
  #startMs: number | undefined;
  #endMs: number | undefined;
  #wanted = 0;
  #base = 0;
  count = 0;

  private constructor(
    readonly port: number,
    private readonly running: ReturnType<typeof startProcess>,
  ) {
    let text = '';
    running.child.stdout!.on('data', (chunk: Buffer) => {
      text = (text + chunk.toString('latin1')).slice(-200);
      const found = [...text.matchAll(/mesg=(\d+)/g)].at(-1);
      if (found) this.#counted(Number(found[1]));
    });
  }

  static async start(): Promise<CountingSink> {
    const port = await freePort();
    const args = ['-u', process.env['USER'] ?? 'root', '-c', '-m', '1000', `127.0.0.1:${port}`, '1000'];
    return new CountingSink(port, startProcess('smtp-sink', args, { env: { PATH: searchPath } }));
  }

  #counted(count: number): void {
    this.count = count;
    if (count > this.#base) this.#startMs ??= performance.now();
    if (count >= this.#base + this.#wanted) this.#endMs ??= performance.now();
  }

  /** The next `messages` are those that count. */
  begin(messages: number): void {
    this.#base = this.count;
    this.#wanted = messages;
    this.#startMs = undefined;
    this.#endMs = undefined;
  }

  /** Messages a second, once all have come. */
  async rate(what: string): Promise<number> {
    await waitFor(
      `${what} to drain (${this.count - this.#base} of ${this.#wanted})`,
      patienceMs,
      async () => this.#endMs !== undefined,
    );
    return this.#wanted / ((this.#endMs! - this.#startMs!) / 1000);
  }

  async stop(): Promise<void> {
    this.running.child.kill('SIGTERM');
    await this.running.ended;
  }
}

async function drainStarling(
  node: NodeProcess,
  sink: CountingSink,
  messages: number,
): Promise<Drained & { firstPerSecond: number }> {
  await node.stop();
  const warmAtSeconds = Math.ceil(systemClock.nowMs() / 1000) + startSeconds;
  const dueAtSeconds = warmAtSeconds + warmUpSeconds;
  for (const [count, due] of [
    [warmUpMessages, warmAtSeconds],
    [messages, dueAtSeconds],
  ] as const) {
    await fillQueue({
      open: (parts) => openEmbeddedStore({ directory: join(node.data, 'store'), ...parts }),
      domains: Array.from({ length: count }, (_, index) => `d${index % domains}.test`),
      tokenPrefix: 'r',
      dueAtSeconds: due,
      messageBytes,
    });
  }
  await node.start();
  if (systemClock.nowMs() > warmAtSeconds * 1000) throw new Error('the machine is too slow to fill the queue in time');
  sink.begin(warmUpMessages);
  const firstPerSecond = await sink.rate('Starling');
  if (systemClock.nowMs() > dueAtSeconds * 1000) throw new Error('the machine is too slow for the warm-up');
  sink.begin(messages);
  await waitFor('the messages to become due', patienceMs, async () => systemClock.nowMs() > dueAtSeconds * 1000 - 500);
  const before = cpuSeconds(node.pid);
  const messagesPerSecond = await sink.rate('Starling');
  // The last results are saved before the node is stopped for the next round.
  await waitFor('the queue to be empty', patienceMs, async () => {
    const { stdout } = await node.cli('queue', 'counts', '--json');
    const { dueNow, scheduled, claimed } = JSON.parse(stdout) as { dueNow: number; scheduled: number; claimed: number };
    return dueNow + scheduled + claimed === 0;
  });
  return { messagesPerSecond, cpuMsPerMessage: ((cpuSeconds(node.pid) - before) * 1000) / messages, firstPerSecond };
}

/** A Postfix that relays everything to the sink, and can be told to wait with it. */
class RelayingPostfix {
  private constructor(
    private readonly postfix: Postfix,
    private readonly parent: string,
  ) {}

  static async start(sinkPort: number): Promise<RelayingPostfix> {
    const parent = mkdtempSync(join(tmpdir(), 'starling-bench-'));
    const settings = {
      relayhost: `[127.0.0.1]:${sinkPort}`,
      smtpd_relay_restrictions: 'permit_mynetworks,reject',
      default_process_limit: '200',
      initial_destination_concurrency: String(concurrency),
      default_destination_concurrency_limit: String(concurrency),
      qmgr_message_active_limit: '20000',
      defer_transports: 'smtp',
      minimal_backoff_time: '3000s',
    };
    chmodSync(parent, 0o755);
    const postfix = await Postfix.start({ domain: 'outside.test', delivery: 'discard', folder: parent, settings });
    return new RelayingPostfix(postfix, parent);
  }

  get #folder(): string {
    return join(this.parent, readdirSync(this.parent)[0]!);
  }

  async #hold(isHeld: boolean): Promise<void> {
    const file = join(this.#folder, 'conf', 'main.cf');
    writeFileSync(
      file,
      readFileSync(file, 'utf8').replace(/^defer_transports = .*$/m, `defer_transports = ${isHeld ? 'smtp' : ''}`),
    );
    await this.#run('postfix', 'reload');
  }

  #run(command: string, ...args: string[]) {
    return runCommand(command, ['-c', join(this.#folder, 'conf'), ...args], { env: { PATH: searchPath } });
  }

  #waiting(): number {
    const names = (folder: string) => readdirSync(join(this.#folder, 'spool', folder), { recursive: true, withFileTypes: true });
    return ['deferred', 'active', 'incoming'].flatMap(names).filter((entry) => entry.isFile()).length;
  }

  async drain(sink: CountingSink, messages: number): Promise<Drained> {
    await this.#hold(true);
    for (let at = 0; at < domains; at++) {
      const count = Math.floor(messages / domains) + (at < messages % domains ? 1 : 0);
      if (count === 0) continue;
      const args = ['-s', '10', '-l', String(messageBytes), '-m', String(count), '-f', 'load@client.test', '-t', `x@d${at}.test`];
      const { code, stderr } = await runCommand('smtp-source', ['-d', ...args, `127.0.0.1:${this.postfix.port}`], {
        env: { PATH: searchPath },
        timeoutMs: patienceMs,
      });
      if (code !== 0) throw new Error(`smtp-source ended with ${code}: ${stderr}`);
    }
    await waitFor('Postfix to hold all', patienceMs, async () => {
      const deferred = readdirSync(join(this.#folder, 'spool', 'deferred'), { recursive: true, withFileTypes: true });
      return deferred.filter((entry) => entry.isFile()).length >= messages;
    });
    await this.#hold(false);
    sink.begin(messages);
    const master = Number(readFileSync(join(this.#folder, 'spool', 'pid', 'master.pid'), 'utf8'));
    const before = cpuSeconds(master);
    await this.#run('postqueue', '-f');
    const messagesPerSecond = await sink.rate('Postfix');
    await waitFor('Postfix to be empty', patienceMs, async () => this.#waiting() === 0);
    return { messagesPerSecond, cpuMsPerMessage: ((cpuSeconds(master) - before) * 1000) / messages };
  }

  async stop(): Promise<void> {
    await this.postfix.stop();
    rmSync(this.parent, { recursive: true, force: true });
  }
}

const speed = (drained: readonly Drained[]): number => median(drained.map((one) => one.messagesPerSecond));
const effort = (drained: readonly Drained[]): number => median(drained.map((one) => one.cpuMsPerMessage));

function figures(name: string, drained: readonly Drained[]): Record<string, number> {
  const field = (text: string) => (name === '' ? text : name + text[0]!.toUpperCase() + text.slice(1));
  return { [field('deliveriesPerSecond')]: round(speed(drained)), [field('cpuMsPerDelivery')]: round(effort(drained)) };
}

/** Starts both servers and one sink, drains each in turns. */
export async function run({ messages = 5_000 }: BenchOptions = {}): Promise<Record<string, unknown>> {
  if (!machineHas('smtp-sink', 'smtp-source')) return { skipped: 'needs smtp-sink and smtp-source' };
  const sink = await CountingSink.start();
  const clusterSettings = `[outbound]\nmaxConcurrentDeliveries = ${concurrency}\n[outbound.relay]\nhost = "127.0.0.1"\nport = ${sink.port}\ntls = "none"\n`;
  let node: NodeProcess | undefined;
  let postfix: RelayingPostfix | undefined;
  try {
    node = await NodeProcess.start({ settings: '[log]\nlevel = "warn"\n', clusterSettings });
    postfix = machineHas('postfix') ? await RelayingPostfix.start(sink.port) : undefined;
    if (postfix) await postfix.drain(sink, warmUpMessages);
    const starling: Awaited<ReturnType<typeof drainStarling>>[] = [];
    const peer: Drained[] = [];
    for (let index = 0; index < rounds; index++) {
      starling.push(await drainStarling(node, sink, messages));
      if (postfix) peer.push(await postfix.drain(sink, messages));
    }
    return {
      store: 'embedded',
      messages,
      messageBytes,
      domains,
      concurrency,
      rounds,
      warmUpMessages,
      ...figures('', starling),
      firstDeliveriesPerSecond: round(median(starling.map(({ firstPerSecond }) => firstPerSecond))),
      ...(postfix
        ? {
            ...figures('postfix', peer),
            ratio: round(speed(starling) / speed(peer)),
            cpuRatio: round(effort(starling) / effort(peer)),
          }
        : { skipped: 'Postfix is not here' }),
    };
  } finally {
    await node?.remove();
    await postfix?.stop();
    await sink.stop();
  }
}
