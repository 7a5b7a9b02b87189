/**
 * Other people's mail servers: names to look up, and hosts that take messages, put them off, refuse them, hang, or hang up after the final dot. They
 * keep time of their own: what has been sent to them arrives, whatever becomes of the sender meanwhile.
 */
import type { NodeClock } from '../../cluster/testing/virtual-time.js';
import type { OutgoingConnection } from '../../node/mailflow/connection-pool.js';
import type { DnsOutcome, MxRecord, Resolver } from '../../protocols/dns/index.js';
import {
  type ClientStage,
  type ConnectOptions,
  type OutgoingMessage,
  type RecipientOutcome,
  type SendResult,
  SmtpConnectError,
} from '../../protocols/smtp/client/contract.js';
import { tokenOf } from './messages.js';
import type { SeededRandom } from './random.js';
import type { Story } from './story.js';

export interface RemoteHabits {
  /** Of each connection: refused with 421. */
  busy: number;
  /** Of each message: 451 at the end. */
  putsOff: number;
  /** Of each message: 550 at the end. */
  refuses: number;
  /** Of each message: nothing is said after the final dot; it was taken in half of the cases. */
  hangsUp: number;
  maxReplyMs: number;
}

export const politeHabits: RemoteHabits = { busy: 0, putsOff: 0, refuses: 0, hangsUp: 0, maxReplyMs: 50 };

/** A copy that a remote host has taken. */
export interface RemoteCopy {
  atMs: number;
  /** Name of the node that sent it. */
  by: string;
  /** The host hung up without saying that it has it. */
  isUnsaid: boolean;
}

export const remoteDomains = ['one.remote.test', 'two.remote.test', 'three.remote.test'] as const;

/** Who sends. */
export interface Sender {
  name: string;
  clock: NodeClock;
}

export class RemoteHosts {
  habits: RemoteHabits = politeHabits;
  /** Domains that nobody answers for. */
  readonly silent = new Set<string>();
  /** `token recipient` to what was taken. */
  readonly copies = new Map<string, RemoteCopy[]>();
  /** `token recipient` of those refused for good. */
  readonly refused = new Set<string>();
  readonly resolver: Resolver = new RemoteNames();

  constructor(
    readonly clock: NodeClock,
    readonly random: SeededRandom,
    readonly story: Story,
  ) {}

  async connect(sender: Sender, { signal, address }: ConnectOptions): Promise<OutgoingConnection> {
    await sender.clock.sleep(this.random.between(1, 10), signal);
    if (this.silent.has(domainAt(address)))
      throw new SmtpConnectError('connect', 'temporary', 0, '4.4.1', `${address} does not answer`);
    if (this.random.chance(this.habits.busy))
      throw new SmtpConnectError('greeting', 'temporary', 421, '4.3.2', `${address} is busy`);
    return new RemoteConnection(this, sender);
  }

  /** The whole message has arrived: what becomes of it, and what is said; undefined where the host hangs up instead. */
  decide(sender: Sender, token: string, recipients: readonly string[]): RecipientOutcome | undefined {
    const { habits, random, story } = this;
    const place = random.float();
    const to = recipients.join(' ');
    if (place < habits.putsOff) {
      story.tell('peer', sender.name, `${token} to ${to}: 451`);
      return 'temporary';
    }
    if (place < habits.putsOff + habits.refuses) {
      story.tell('peer', sender.name, `${token} to ${to}: 550`);
      for (const recipient of recipients) this.refused.add(`${token} ${recipient}`);
      return 'permanent';
    }
    const isUnsaid = random.chance(habits.hangsUp);
    const isTaken = !isUnsaid || random.chance(0.5);
    story.tell('peer', sender.name, `${token} to ${to}: ${isTaken ? 'taken' : 'not taken'}${isUnsaid ? ', hung up' : ''}`);
    if (isTaken) {
      for (const recipient of recipients) {
        const name = `${token} ${recipient}`;
        const copies = this.copies.get(name) ?? [];
        copies.push({ atMs: this.clock.monotonicMs(), by: sender.name, isUnsaid });
        this.copies.set(name, copies);
      }
    }
    return isUnsaid ? undefined : 'delivered';
  }
}

const replies: Record<RecipientOutcome, { code: number; enhanced: string; text: string }> = {
  delivered: { code: 250, enhanced: '2.0.0', text: 'Taken' },
  temporary: { code: 451, enhanced: '4.3.0', text: 'Not now' },
  permanent: { code: 550, enhanced: '5.7.1', text: 'Never' },
  unknown: { code: 0, enhanced: '4.4.2', text: 'The connection was lost after the end of the content' },
};

class RemoteConnection implements OutgoingConnection {
  #isOpen = true;

  constructor(
    readonly hosts: RemoteHosts,
    readonly sender: Sender,
  ) {}

  async send({ recipients, body }: OutgoingMessage, signal?: AbortSignal): Promise<SendResult> {
    const { hosts, sender } = this;
    const addresses = recipients.map(({ address }) => address);
    if (!this.#isOpen) return result(addresses, 'temporary', 'mail', false);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of body.open()) chunks.push(chunk);
    } catch {
      // Cut off in the middle: the peer has not taken anything.
      return result(addresses, 'temporary', 'data', false);
    }
    await sender.clock.sleep(hosts.random.between(1, 20), signal);
    if (body.mayComplete?.() === false) return result(addresses, 'temporary', 'data', false);
    const arrived = this.#arrived(Buffer.concat(chunks), addresses);
    const outcome = await heeding(arrived, signal);
    // The reply's way back: a process that stands still hears it later.
    await sender.clock.sleep(hosts.random.between(1, 5), signal);
    if (outcome === undefined) this.#isOpen = false;
    return result(addresses, outcome ?? 'unknown', 'end-of-data', this.#isOpen);
  }

  async quit(): Promise<void> {
    this.#isOpen = false;
  }

  destroy(): void {
    this.#isOpen = false;
  }

  async #arrived(content: Buffer, addresses: readonly string[]): Promise<RecipientOutcome | undefined> {
    const { hosts, sender } = this;
    await hosts.clock.sleep(hosts.random.between(1, hosts.habits.maxReplyMs));
    return hosts.decide(sender, tokenOf(content) ?? 'report', addresses);
  }
}

function result(addresses: readonly string[], outcome: RecipientOutcome, stage: ClientStage, reusable: boolean): SendResult {
  const recipients = addresses.map((address) => ({ address, outcome, ...replies[outcome], stage, wide: stage === 'mail' }));
  return { recipients, dsnPassedOn: false, reusable };
}

/** Like `work`, but no longer than until `signal` is aborted. */
async function heeding<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

const domainAt = (address: string): string => remoteDomains[Number(address.slice(address.lastIndexOf('.') + 1)) - 1] ?? '';

/** Each remote domain has one mail host, and each host one address. */
class RemoteNames implements Resolver {
  async mx(name: string): Promise<DnsOutcome<MxRecord>> {
    return isRemote(name) ? found([{ preference: 10, exchange: `mx.${name}` }]) : nothing;
  }

  async a(name: string): Promise<DnsOutcome<string>> {
    const at = remoteDomains.findIndex((domain) => name === `mx.${domain}`);
    return at < 0 ? nothing : found([`192.0.2.${at + 1}`]);
  }

  async aaaa(name: string): Promise<DnsOutcome<string>> {
    return name.startsWith('mx.') ? { status: 'nodata', authenticated: false } : nothing;
  }

  async txt(): Promise<DnsOutcome<string>> {
    return nothing;
  }

  async ptr(): Promise<DnsOutcome<string>> {
    return nothing;
  }
}

const nothing = { status: 'nxdomain', authenticated: false } as const;
const isRemote = (name: string): boolean => (remoteDomains as readonly string[]).includes(name);

function found<T>(records: T[]): DnsOutcome<T> {
  return { status: 'found', records, authenticated: false, ttlSeconds: 60 };
}
