/**
 * Bans by address: kept in the store, held in memory on every node, found at accept without waiting. What another node bans is known here as soon as the bus
 * says so, and at the latest with the next look (30 s).
 */
import { type Clock, counter, gauge, type Logger, type Timer } from '../../ops/telemetry/index.js';
import type { KvReads, KvStore } from '../kv/contract.js';
import {
  allBans,
  type LogPosition,
  liftBan,
  purgeBans,
  purgeLog,
  readBanGeneration,
  readChanges,
  readPosition,
  writeBan,
} from './ban-records.js';
import type { Ban, Bans } from './contract.js';
import type { Assert } from './expiring.js';
import { isWithin, type Network, NetworkMap, networkText, parseNetwork } from './networks.js';

/** `result`: banned; exempt = a member's, a proxy's or this machine's own address; full = too many bans already. Reasons of operators' own making are `other`. */
const bansTotal = counter('starling_bans_total', 'Bans that were to be made on this node.', ['reason', 'result']);
const bansKnown = gauge('starling_bans', 'Bans that this node knows.');

const knownReasons: ReadonlySet<string> = new Set(['login', 'abuse', 'spam-trap', 'errors', 'operator', 'dnsbl']);

export const banLimits = {
  lookEveryMs: 30_000,
  /** Beyond it only operators ban. Some hundred octets each, on every node. */
  maxBans: 200_000,
  /** Networks that are wider are refused: a slip would shut everybody out. */
  minIpv4Prefix: 8,
  minIpv6Prefix: 16,
  maxNoteBytes: 1_000,
  maxReasonBytes: 64,
  /** Ended ones are listed for so long, and so much may clocks differ before one is ended for all by a node whose clock is ahead. */
  keptAfterEndMs: 6 * 3_600_000,
} as const;

/** Loopback, and what stands for a client of whom a proxy knows no address: everybody else like him. */
const nobodys = ['127.0.0.0/8', '::1', '0.0.0.0', '::'].map((text) => parseNetwork(text)!);

export interface BansDependencies {
  kv: KvStore;
  clock: Clock;
  logger: Logger;
  /** Addresses of members and trusted proxies: only an operator's ban holds for them. Loopback is exempt anyhow. */
  isExempt?(address: string): boolean;
}

export interface OpenBans extends Bans {
  /**
   * Told when bans begin to hold on this node, whoever has made them: what is open from there can be ended (`TcpListener.cutBanned`). Told once of all that
   * were learnt together, since looking through what is open is dear; not told of those that were found at start.
   */
  onBanned(listener: (bans: readonly Ban[]) => void): () => void;
  forgetExpired(assert?: Assert): Promise<void>;
}

/** Nothing is banned before `start`. */
export function createBans(deps: BansDependencies): OpenBans {
  return new KnownBans(deps);
}

interface Known {
  ban: Ban;
  network: Network;
}

class KnownBans implements OpenBans {
  #known = new NetworkMap<Known>();
  #position: LogPosition | undefined;
  #isStarted = false;
  #timer: Timer | undefined;
  #loading: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  readonly #changedListeners = new Set<() => void>();
  readonly #bannedListeners = new Set<(bans: readonly Ban[]) => void>();
  /** Monotonic. */
  #forgotAtMs = Number.NEGATIVE_INFINITY;

  constructor(readonly deps: BansDependencies) {}

  async start(): Promise<void> {
    this.#isStarted = true;
    await this.reload();
    this.#lookLater();
  }

  async stop(): Promise<void> {
    this.#isStarted = false;
    this.#timer?.cancel();
    await this.#loading?.catch(() => {});
  }

  find(address: string): Ban | undefined {
    if (this.#known.size === 0) return undefined;
    const nowMs = this.deps.clock.nowMs();
    // Asked at most once, and only for an address in a banned network.
    let isExempt: boolean | undefined;
    const holds = ({ ban }: Known) => {
      if (ban.untilMs !== undefined && ban.untilMs <= nowMs) return false;
      if (ban.reason === 'operator') return true;
      isExempt ??= this.#isExempt(address);
      return !isExempt;
    };
    return this.#known.find(address, holds)?.ban;
  }

  async add(wanted: Omit<Ban, 'bannedAtMs'>): Promise<void> {
    const network = bannable(wanted);
    const text = networkText(network);
    const { reason } = wanted;
    const label = knownReasons.has(reason) ? reason : 'other';
    if (reason !== 'operator') {
      const isExempt = this.#isExempt(text);
      if (isExempt || this.#known.size >= banLimits.maxBans) {
        bansTotal.inc({ reason: label, result: isExempt ? 'exempt' : 'full' });
        this.deps.logger.warn({ network: text, reason, isExempt }, isExempt ? 'this address is never banned' : 'too many bans');
        return;
      }
    }
    const { kv, clock, logger } = this.deps;
    const nowMs = Math.floor(clock.nowMs());
    const { note, untilMs } = wanted;
    const ban: Ban = { network: text, reason, note, bannedAtMs: nowMs, ...(untilMs !== undefined && { untilMs }) };
    const stored = await kv.transact((tx) => writeBan(tx, ban), { label: 'ban' });
    bansTotal.inc({ reason: label, result: 'banned' });
    logger.info({ ...stored }, 'address banned');
    if (this.#learn(text, stored)) this.#announce([stored]);
    this.#tell();
  }

  async lift(network: string): Promise<boolean> {
    const parsed = parseNetwork(network.trim());
    if (!parsed) throw new RangeError(`neither an address nor a network: ${network}`);
    const text = networkText(parsed);
    const { kv, clock, logger } = this.deps;
    const wasThere = await kv.transact((tx) => liftBan(tx, text, Math.floor(clock.nowMs())), { label: 'ban' });
    if (!wasThere) return false;
    logger.info({ network: text }, 'ban lifted');
    this.#learn(text, undefined);
    this.#tell();
    return true;
  }

  async list(): Promise<Ban[]> {
    const bans: Ban[] = [];
    const nowMs = this.deps.clock.nowMs();
    for await (const page of allBans(this.deps.kv)) {
      bans.push(...page.filter(({ untilMs }) => untilMs === undefined || untilMs > nowMs));
    }
    return bans;
  }

  readGeneration(reads: KvReads): Promise<string> {
    return readBanGeneration(reads);
  }

  /** What has changed since the last time. A call while one is under way waits for another one after it: it may be about something newer. */
  reload(): Promise<void> {
    if (this.#loading) {
      this.#next ??= this.#loading
        .catch(() => {})
        .then(() => {
          this.#next = undefined;
          return this.reload();
        });
      return this.#next;
    }
    this.#loading = this.#load().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  onChanged(listener: () => void): () => void {
    this.#changedListeners.add(listener);
    return () => this.#changedListeners.delete(listener);
  }

  onBanned(listener: (bans: readonly Ban[]) => void): () => void {
    this.#bannedListeners.add(listener);
    return () => this.#bannedListeners.delete(listener);
  }

  async forgetExpired(assert?: Assert): Promise<void> {
    const { kv, clock } = this.deps;
    const nowMs = clock.nowMs();
    const overMs = nowMs - banLimits.keptAfterEndMs;
    const isOver = ({ untilMs }: Ban) => untilMs !== undefined && untilMs <= overMs;
    if (this.#isStarted && this.#position) {
      const over = [...this.#known.values()].filter(({ ban }) => isOver(ban));
      await purgeBans(
        kv,
        over.map(({ ban }) => ban.network),
        overMs,
        assert,
      );
      for (const { network } of over) {
        const now = this.#known.get(network);
        // Meanwhile it may have been banned again.
        if (now && isOver(now.ban)) this.#known.delete(network);
      }
    } else {
      for await (const page of allBans(kv))
        await purgeBans(
          kv,
          page.filter(isOver).map(({ network }) => network),
          overMs,
          assert,
        );
    }
    await purgeLog(kv, nowMs, assert);
  }

  #isExempt(text: string): boolean {
    const network = parseNetwork(text);
    if (network && nobodys.some((own) => isWithin(network, own))) return true;
    // Of a wider network it is asked for each address, when that comes.
    return !text.includes('/') && (this.deps.isExempt?.(text) ?? false);
  }

  async #load(): Promise<void> {
    const { kv } = this.deps;
    const isFirst = this.#position === undefined;
    while (this.#position) {
      const page = await readChanges(kv, this.#position);
      if (!page) break;
      const news = page.networks.flatMap(({ network, ban }) => (this.#learn(network, ban) && ban ? [ban] : []));
      this.#announce(news);
      this.#position = page.position;
      if (page.isLast) {
        this.#forgetEnded();
        return;
      }
    }
    // From the beginning: what changes meanwhile is in the log after this.
    const position = await readPosition(kv);
    const before = this.#known;
    this.#known = await readAll(kv);
    if (!isFirst) {
      const all = [...this.#known.values()];
      this.#announce(all.filter(({ ban, network }) => !sameBan(before.get(network)?.ban, ban)).map(({ ban }) => ban));
    }
    this.#position = position;
    await this.#load();
  }

  /** What was purged from the store is told to nobody. Goes through all that are known: not with every change. */
  #forgetEnded(): void {
    const { clock } = this.deps;
    if (clock.monotonicMs() - this.#forgotAtMs < banLimits.lookEveryMs) return;
    this.#forgotAtMs = clock.monotonicMs();
    const overMs = clock.nowMs() - 2 * banLimits.keptAfterEndMs;
    const ended = [...this.#known.values()].filter(({ ban }) => ban.untilMs !== undefined && ban.untilMs <= overMs);
    for (const { network } of ended) this.#known.delete(network);
    bansKnown.set(this.#known.size);
  }

  /** Answers whether there is a ban, and one that was not known. */
  #learn(text: string, ban: Ban | undefined): boolean {
    const network = parseNetwork(text);
    if (!network) return false;
    const before = this.#known.get(network);
    if (ban) this.#known.set(network, { ban, network });
    else this.#known.delete(network);
    bansKnown.set(this.#known.size);
    return ban !== undefined && !sameBan(before?.ban, ban);
  }

  #announce(bans: readonly Ban[]): void {
    const nowMs = this.deps.clock.nowMs();
    const holding = bans.filter(({ untilMs }) => untilMs === undefined || untilMs > nowMs);
    if (holding.length === 0) return;
    for (const listener of this.#bannedListeners) listener(holding);
  }

  #tell(): void {
    for (const listener of this.#changedListeners) listener();
  }

  #lookLater(): void {
    if (!this.#isStarted) return;
    this.#timer = this.deps.clock.setTimer(banLimits.lookEveryMs, () => void this.#look(), { background: true });
  }

  async #look(): Promise<void> {
    try {
      await this.reload();
    } catch (error) {
      this.deps.logger.debug({ err: error }, 'bans can not be read; those that are known go on');
    }
    this.#lookLater();
  }
}

async function readAll(kv: KvStore): Promise<NetworkMap<Known>> {
  const known = new NetworkMap<Known>();
  for await (const page of allBans(kv)) {
    for (const ban of page) {
      const network = parseNetwork(ban.network);
      if (network) known.set(network, { ban, network });
    }
  }
  return known;
}

function sameBan(a: Ban | undefined, b: Ban): boolean {
  return a !== undefined && a.bannedAtMs === b.bannedAtMs && a.untilMs === b.untilMs && a.reason === b.reason;
}

/** @throws RangeError for what can't be banned, with a sentence for the operator. */
function bannable({ network, note, reason }: Omit<Ban, 'bannedAtMs'>): Network {
  const parsed = parseNetwork(network.trim());
  if (!parsed) throw new RangeError(`neither an address nor a network: ${network}`);
  const least = parsed.family === 4 ? banLimits.minIpv4Prefix : banLimits.minIpv6Prefix;
  if (parsed.prefix < least) throw new RangeError(`${network} is too wide to be banned: at least /${least} is needed`);
  if (Buffer.byteLength(note) > banLimits.maxNoteBytes)
    throw new RangeError(`a note has at most ${banLimits.maxNoteBytes} bytes`);
  if (reason === '' || Buffer.byteLength(reason) > banLimits.maxReasonBytes) {
    throw new RangeError(`a reason has 1 to ${banLimits.maxReasonBytes} bytes`);
  }
  return parsed;
}
