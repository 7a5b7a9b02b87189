/**
 * DNS blocklists (RFC 5782): asked when a client connects, all zones side by side, and waited for when it names a recipient, so that nobody's greeting is held
 * up. One look per client at a time, remembered for a while; a zone that does not answer in time says nothing.
 */
import { isIPv4 } from 'node:net';
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import type { DnsOutcome, Resolver } from '../../../protocols/dns/index.js';
import type { BlocklistStage, BlocklistZone } from './contract.js';
import { stageTrouble } from './metrics.js';
import { networkSet, reversedLabels } from './networks.js';

export interface BlocklistLook {
  readonly address: string;
  /** Zones that list the client, in the order of the settings. Never rejects. */
  readonly listedBy: Promise<readonly BlocklistZone[]>;
  /** What one of them says of the client, if it says something; asked once. Never rejects. */
  textOf(zone: BlocklistZone): Promise<string | undefined>;
}

const maxRemembered = 20_000;
/** After a look with zones that did not answer: the next client from there has another one soon. */
const incompleteSeconds = 10;
const maxTextCharacters = 300;
/** A zone that is away says nothing of every client: said this often, not each time. */
const warnEveryMs = 60_000;
/** What zones answer when they will not answer (too many questions, open resolvers): never a listing. */
const isRefusal = networkSet(['127.255.255.0/24']);
const isAnswer = networkSet(['127.0.0.0/8']);

interface ZoneResult {
  zone: BlocklistZone;
  result: 'listed' | 'unlisted' | 'unknown';
}

export interface BlocklistDependencies {
  resolver: Pick<Resolver, 'a' | 'txt'>;
  clock: Clock;
  logger: Logger;
}

export class Blocklists {
  readonly #d: BlocklistDependencies;
  /** In the order of their making. */
  readonly #remembered = new Map<string, BlocklistLook & { stage: BlocklistStage; untilMs: number }>();
  /** By zone, monotonic. */
  readonly #warnedAtMs = new Map<string, number>();

  constructor(dependencies: BlocklistDependencies) {
    this.#d = dependencies;
  }

  /** Begins to look, or takes a look that is still good. */
  look(address: string, stage: BlocklistStage): BlocklistLook {
    const nowMs = this.#d.clock.monotonicMs();
    const known = this.#remembered.get(address);
    if (known && known.stage === stage && known.untilMs > nowMs) return known;
    this.#remembered.delete(address);
    const labels = reversedLabels(address);
    const texts = new Map<BlocklistZone, Promise<string | undefined>>();
    const entry = {
      address,
      stage,
      // While it goes on it is shared.
      untilMs: Number.POSITIVE_INFINITY,
      listedBy: this.#lookUp(labels, stage).then(({ listedBy, isComplete }) => {
        const seconds = isComplete ? stage.cacheSeconds : Math.min(stage.cacheSeconds, incompleteSeconds);
        entry.untilMs = this.#d.clock.monotonicMs() + seconds * 1000;
        return listedBy;
      }),
      textOf: (zone: BlocklistZone) => {
        const known = texts.get(zone);
        if (known) return known;
        const asked = labels === undefined ? Promise.resolve(undefined) : this.#text(labels, zone);
        texts.set(zone, asked);
        return asked;
      },
    };
    this.#remembered.set(address, entry);
    if (this.#remembered.size > maxRemembered) this.#remembered.delete(this.#remembered.keys().next().value!);
    return entry;
  }

  async #lookUp(
    labels: string | undefined,
    stage: BlocklistStage,
  ): Promise<{ listedBy: readonly BlocklistZone[]; isComplete: boolean }> {
    if (labels === undefined) return { listedBy: [], isComplete: true };
    const results = await Promise.all(stage.zones.map((zone) => this.#ask(labels, zone)));
    const isComplete = results.every(({ result }) => result !== 'unknown');
    return { listedBy: results.filter(({ result }) => result === 'listed').map(({ zone }) => zone), isComplete };
  }

  async #ask(labels: string, zone: BlocklistZone): Promise<ZoneResult> {
    const outcome = await this.#within(zone.timeoutMs, this.#d.resolver.a(`${labels}.${zone.zone}`));
    if (outcome === undefined || outcome.status === 'temporary') return this.#unknown(zone, outcome?.reason ?? 'timeout');
    if (outcome.status !== 'found') return { zone, result: 'unlisted' };
    const answers = outcome.records.filter((record) => isIPv4(record) && isAnswer(record));
    if (answers.length === 0) return this.#unknown(zone, `answers ${outcome.records[0]}`);
    if (answers.some(isRefusal)) return this.#unknown(zone, `refuses to answer (${answers.find(isRefusal)})`);
    return { zone, result: answers.some(zone.answers) ? 'listed' : 'unlisted' };
  }

  #unknown(zone: BlocklistZone, reason: string): ZoneResult {
    stageTrouble.inc({ check: 'blocklist' });
    const nowMs = this.#d.clock.monotonicMs();
    const isNews = !(nowMs - (this.#warnedAtMs.get(zone.zone) ?? Number.NEGATIVE_INFINITY) < warnEveryMs);
    if (isNews) this.#warnedAtMs.set(zone.zone, nowMs);
    this.#d.logger[isNews ? 'warn' : 'debug']({ zone: zone.zone, reason }, 'a blocklist did not say anything of use');
    return { zone, result: 'unknown' };
  }

  async #text(labels: string, zone: BlocklistZone): Promise<string | undefined> {
    const outcome = await this.#within(zone.timeoutMs, this.#d.resolver.txt(`${labels}.${zone.zone}`));
    return outcome?.status === 'found' ? outcome.records[0]?.slice(0, maxTextCharacters) : undefined;
  }

  async #within<T>(timeoutMs: number, question: Promise<DnsOutcome<T>>): Promise<DnsOutcome<T> | undefined> {
    const over = new AbortController();
    const timeUp = this.#d.clock.sleep(timeoutMs, over.signal).then(
      () => undefined,
      () => undefined,
    );
    try {
      return await Promise.race([question, timeUp]);
    } finally {
      over.abort();
    }
  }
}
