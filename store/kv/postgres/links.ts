/**
 * Makes connections to whichever host takes writes: the one that did last, then the others in turn. Keeps trying, with jitter, and
 * tells since when it has failed.
 */
import type { Clock, Logger, Random } from '../../../ops/telemetry/index.js';
import { KvError } from '../contract.js';
import type { Endpoint } from './endpoints.js';
import { isConfigurationError, unavailable } from './errors.js';
import { Link, type LinkOptions, type Role } from './link.js';
import { connectFailuresTotal, connectsTotal } from './metrics.js';

/** Why a connection to the host before is cut. */
export const switched = 'another host takes writes now';
/** Everybody who waits for a connection is told after this that there is none. Short restarts of the server go unnoticed. */
export const patienceMs = 2_000;
const connectTimeoutMs = 2_000;
const viewAnswerTimeoutMs = 60_000;
const firstPauseMs = 25;
const maxPauseMs = 1_000;

export class Links {
  readonly #onSwitch: ((preferred: Endpoint) => void)[] = [];
  #preferred = 0;

  constructor(
    readonly endpoints: readonly Endpoint[],
    readonly clock: Clock,
    readonly random: Random,
    readonly logger: Logger,
    /** The longest wait for an answer of the server. */
    readonly answerTimeoutMs: number,
  ) {}

  /** The host that was last seen to take writes. */
  get preferred(): Endpoint {
    return this.endpoints[this.#preferred]!;
  }

  /** One attempt at each host. Throws `unavailable` with what the last one said. */
  async open(role: Role): Promise<Link> {
    let failure: unknown;
    const first = this.#preferred;
    for (let tried = 0; tried < this.endpoints.length; tried++) {
      const index = (first + tried) % this.endpoints.length;
      const endpoint = this.endpoints[index]!;
      try {
        const link = await Link.open(endpoint, this.#optionsFor(role), this.clock);
        connectsTotal.inc({ role });
        if (index !== this.#preferred) {
          this.logger.warn({ from: this.preferred.name, to: endpoint.name }, 'another host of the store takes writes now');
          this.#preferred = index;
          for (const tell of this.#onSwitch) tell(endpoint);
        }
        return link;
      } catch (error) {
        connectFailuresTotal.inc({ role });
        if (failure === undefined || !isConfigurationError(failure)) failure = error;
      }
    }
    throw unavailable(failure, 'PostgreSQL can not be reached');
  }

  #optionsFor(role: Role): LinkOptions {
    const isView = role === 'view';
    return {
      role,
      connectTimeoutMs: Math.min(connectTimeoutMs, this.answerTimeoutMs),
      answerTimeoutMs: isView ? viewAnswerTimeoutMs : this.answerTimeoutMs,
      // The server gives up a little later than this node, so that an answer which this node still waits for is never cut off.
      statementTimeoutMs: isView ? 0 : Math.ceil(this.answerTimeoutMs * 1.5),
    };
  }

  /** `tell` is called when another host turned out to take writes: connections to the old one are of no use any more. */
  onSwitch(tell: (preferred: Endpoint) => void): void {
    this.#onSwitch.push(tell);
  }

  /** The next attempt begins with another host: this one takes no writes any more. */
  avoid(endpoint: Endpoint): void {
    if (this.preferred === endpoint) this.#preferred = (this.#preferred + 1) % this.endpoints.length;
  }
}

/** Opens one connection after another for one purpose, each when the last is lost. */
export class Reconnector {
  /** Since when there is no connection although one is wanted; monotonic. */
  downSinceMs: number | undefined;
  lastError: KvError | undefined;
  #running = false;

  constructor(
    readonly links: Links,
    readonly role: Role,
    /** Takes a fresh connection into use; what it throws counts as a failed attempt. */
    readonly onOpen: (link: Link) => Promise<void>,
    /** After each failed attempt. */
    readonly onFailure: (error: KvError) => void,
    readonly isWanted: () => boolean,
  ) {}

  /** Whether everybody has been patient long enough. */
  get isOut(): boolean {
    return this.downSinceMs !== undefined && this.links.clock.monotonicMs() - this.downSinceMs > patienceMs;
  }

  /** Begins to try, unless it does already; ends with the first success, or when nobody wants it any more. */
  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.downSinceMs ??= this.links.clock.monotonicMs();
    void this.#loop();
  }

  async #loop(): Promise<void> {
    const { clock, random, logger } = this.links;
    for (let attempts = 0; this.isWanted(); attempts++) {
      let link: Link | undefined;
      try {
        link = await this.links.open(this.role);
        // Closed meanwhile: nobody would ever let go of it.
        if (!this.isWanted()) {
          link.close();
          break;
        }
        await this.onOpen(link);
        if (link.isLost) throw new KvError('unavailable', 'the connection was lost at once', 'outage');
        if (this.lastError && attempts > 0) logger.info({ role: this.role, attempts }, 'connected to the store again');
        this.#running = false;
        this.downSinceMs = undefined;
        this.lastError = undefined;
        return;
      } catch (error) {
        link?.destroy(error instanceof Error ? error : new Error(String(error)));
        const failure = unavailable(error, 'PostgreSQL can not be used');
        if (failure.message !== this.lastError?.message)
          logger.warn({ err: failure, role: this.role }, 'no connection to the store');
        this.lastError = failure;
        this.onFailure(failure);
      }
      await clock.sleep(random.float() * Math.min(firstPauseMs * 2 ** Math.min(attempts, 10), maxPauseMs));
    }
    this.#running = false;
  }
}
