/**
 * Delivers claimed destinations of other domains: waits for its place, finds the hosts, speaks to them in turn, and saves what each has answered at once. What a
 * peer may have taken although its answer was lost is tried again: at least once (RFC 5321 4.5.5), and said in the log.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { Resolver } from '../../protocols/dns/index.js';
import type { ConnectOptions } from '../../protocols/smtp/client/contract.js';
import { BlobMissing, type BlobStore } from '../../store/blobs/contract.js';
import type { ConcurrencyLimiter, RateLimiter } from '../../store/limits/contract.js';
import type { Destinations } from '../../store/queue/destinations-contract.js';
import { type ClaimedDestination, ClaimLost, type Queue, type QueueRecipient } from '../../store/queue/index.js';
import type { ExpressionHost } from '../expressions/contract.js';
import { createConnectionPool, type OutgoingConnection } from './connection-pool.js';
import type { DeliverLocal } from './deliver-local.js';
import { inOrder, leadsHome, type OwnPlaces, recently } from './outbound/addresses.js';
import { type Answer, type OpenRecipients, sameVerdict } from './outbound/answer.js';
import { createChoices, type Facts } from './outbound/choices.js';
import type { AddressOrder, DestinationPacer, PaceResult, TlsPolicy } from './outbound/contract.js';
import { type Attempt, type ConversationDependencies, converse, familyMemory } from './outbound/conversation.js';
import { createEndings } from './outbound/endings.js';
import { queueFacts } from './outbound/facts.js';
import { createHostMemory } from './outbound/host-memory.js';
import { createOwnTrouble, type OwnTrouble } from './outbound/own-trouble.js';
import { createPacer } from './outbound/pacer.js';
import { type Admittance, admit } from './outbound/throttle.js';
import { createTurns } from './outbound/turns.js';
import { untilSaved } from './persist.js';
import { findRoute, mailLoops, type RouteStop, unresolved } from './remote-route.js';
import { nextDeadlineMs } from './retry-schedule.js';
import { allSchedules } from './schedule-choice.js';
import type { MailflowSettings } from './settings.js';
import { isPending, type Settle, type SettleInput } from './settle.js';
import type { DeliveryJob, DeliveryReply, RecipientVerdict } from './types.js';

export interface RemoteDeliveryDependencies {
  blobs: BlobStore;
  queue: Pick<Queue, 'release'>;
  settle: Settle;
  /** For what a route takes to the mailboxes of this installation. */
  deliverLocal: DeliverLocal;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** What holds now; a delivery keeps to what it began with: a relay host's password must not go to another. */
  settings: () => MailflowSettings;
  resolver: Resolver;
  connect(options: ConnectOptions): Promise<OutgoingConnection>;
  /** Whether this node may hand messages to others: not while it may have been declared dead, and another may be sending them. Default: always. */
  maySend?: () => boolean;
  /** What expressions ask. */
  host?: ExpressionHost;
  /** For expressions. */
  nodeId?: string;
  /** Limits of the cluster; without them `outbound.rates` and `.concurrency` are not heeded. */
  limits?: { rates?: Pick<RateLimiter, 'take'>; concurrency?: ConcurrencyLimiter };
  /** Told what each attempt said of its domain. */
  destinations?: Pick<Destinations, 'report' | 'putOffProbe'>;
  /** What policies (MTA-STS, DANE) demand of hosts. */
  tlsPolicy?: TlsPolicy;
  /** Where this installation listens with SMTP, and the machine's addresses: mail is not sent there. */
  ownEndpoints?: () => OwnPlaces;
}

export interface RemoteDelivery {
  /**
   * Delivers one claimed destination as far as it gets now. When nothing more is to be asked of other servers it leaves its places (of the pace and of the
   * cluster's limits) and calls `job.onAnswered`, while what they have said is being saved. Throws ClaimLost, or what `signal` was aborted with.
   */
  deliver(job: DeliveryJob, signal: AbortSignal): Promise<void>;
  /** How many deliveries to a domain may run side by side on this node. */
  readonly pacer: DestinationPacer;
  close(): void;
}

const timeOver = {
  verdict: 'deferred',
  reply: { code: 0, enhanced: '4.4.2', text: 'The delivery took too long' },
} as const;
const heldBack = {
  verdict: 'deferred',
  reply: { code: 0, enhanced: '4.7.1', text: 'Held back by a limit on outgoing mail' },
} as const;
const contentLost = {
  verdict: 'failed',
  reply: { code: 0, enhanced: '5.3.0', text: 'The content of this message is lost' },
} as const;

type Refused = Extract<Admittance, { isAllowed: false }>;

export function createRemoteDelivery(d: RemoteDeliveryDependencies): RemoteDelivery {
  const { clock, logger } = d;
  // How long connections wait for more is no setting that changes: the pool outlives any change.
  const { maxIdleConnectionsPerHost, idleConnectionSeconds } = d.settings();
  const pool = createConnectionPool({
    clock,
    maxIdlePerHost: maxIdleConnectionsPerHost,
    idleMs: idleConnectionSeconds * 1000,
    limitsPerConnection: () => {
      const { maxMessagesPerConnection, maxSecondsPerConnection } = d.settings().outbound;
      return { maxMessages: maxMessagesPerConnection, maxMs: maxSecondsPerConnection * 1000 };
    },
  });
  const choices = createChoices(d);
  const ownPlaces = recently(() => d.ownEndpoints?.() ?? { endpoints: [], interfaces: [] }, clock);
  const pacer = createPacer(() => d.settings().maxConnectionsPerDomain);
  const talk: ConversationDependencies = { ...d, pool, choices, memory: createHostMemory(clock), policy: d.tlsPolicy };

  const turn = createTurns(d);
  const ownTrouble = createOwnTrouble(clock);
  const endingOf = createEndings(clock, () => new DeliveryTimeout());

  /** Not now, by a limit of the cluster: due again when its turn may have come, and no attempt; but its notices and its end come when they should. */
  async function putBack(claimed: ClaimedDestination, refused: Refused, signal: AbortSignal): Promise<void> {
    const { message, destination } = claimed;
    const waitSeconds = turn(refused);
    const nowMs = clock.nowMs();
    const deadlineMs = nextDeadlineMs(message, destination, ...allSchedules(d.settings()));
    logger.debug(
      { queueId: message.id, domain: destination.domain, limit: refused.name, waitSeconds },
      'delivery put off by a limit',
    );
    // It may have been the domain's only probe for an hour.
    if (claimed.isForced) void d.destinations?.putOffProbe(destination.domain, waitSeconds);
    if (deadlineMs > nowMs) {
      await d.queue.release([claimed], Math.ceil(Math.min(nowMs / 1000 + waitSeconds, deadlineMs / 1000)));
      return;
    }
    const verdicts = sameVerdict(destination.recipients.filter(isPending), heldBack);
    await untilSaved(d, () => d.settle({ claimed, verdicts, kind: 'remote', isUnattempted: true }), signal);
  }

  /** Within the limits, with a limit on its time. Answers what the attempt said of the destination; `onAnswered` is told it as soon as that is known. */
  async function attempt(
    claimed: ClaimedDestination,
    facts: Facts,
    signal: AbortSignal,
    onAnswered: (pace: PaceResult) => void,
  ): Promise<PaceResult> {
    const settings = d.settings();
    const admittance = await admit({ ...d.limits, logger }, settings.outbound, choices, facts);
    if (!admittance.isAllowed) {
      await putBack(claimed, admittance, signal);
      return 'neutral';
    }
    const ending = endingOf(signal, settings.maxRemoteDeliverySeconds * 1000);
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      // Its signal may be another delivery's from now on.
      ending.over();
      admittance.release();
    };
    const round: Round = new Round(d, talk, ownPlaces, ownTrouble, {
      claimed,
      settings,
      facts,
      signal: ending.signal,
      stopping: signal,
      onAnswered: () => {
        over();
        onAnswered(round.pace);
      },
    });
    try {
      await round.run();
    } catch (error) {
      const isTimeUp = !isOver && ending.signal.aborted && !signal.aborted && !(error instanceof ClaimLost);
      if (!isTimeUp && !(error instanceof BlobMissing)) throw error;
      if (!isTimeUp) logger.error({ queueId: claimed.message.id, err: error }, 'content of a queued message is missing');
      const pending = claimed.destination.recipients.filter(isPending);
      const verdicts = sameVerdict(pending, isTimeUp ? timeOver : contentLost);
      await untilSaved(d, () => d.settle({ claimed, verdicts, kind: 'remote' }), signal);
      if (isTimeUp) round.pace = 'bad';
    } finally {
      over();
    }
    round.report();
    return round.pace;
  }

  return {
    pacer,
    async deliver({ claimed, onAnswered }, signal) {
      const leave = await pacer.enter(claimed.destination.domain, signal);
      let result: PaceResult = 'neutral';
      try {
        const node = { node_id: d.nodeId ?? claimed.claim.nodeId, hostname: d.settings().hostname };
        let known: ReturnType<Facts> | undefined;
        const facts = () => (known ??= queueFacts(claimed, node, clock.nowMs()));
        result = await attempt(claimed, facts, signal, (pace) => {
          leave(pace);
          onAnswered?.();
        });
      } finally {
        leave(result);
      }
    },
    close: () => pool.close(),
  };
}

class DeliveryTimeout extends Error {
  override readonly name = 'DeliveryTimeout';
}

/** What an attempt is made with. */
interface RoundInput {
  claimed: ClaimedDestination;
  settings: MailflowSettings;
  facts: Facts;
  /** Ends conversations. */
  signal: AbortSignal;
  /** Only this ends the saving: what a peer has answered stays true when the time is over. */
  stopping: AbortSignal;
  /** The last save has begun: nobody is asked any more. */
  onAnswered(): void;
}

/** Before anybody was asked. */
const untried: Omit<RecipientVerdict, 'address'> = {
  verdict: 'deferred',
  reply: { code: 0, enhanced: '4.4.1', text: 'No mail host of this domain could be tried' },
};

/** One attempt at one destination: all its hosts, until each recipient is decided or none is left to ask. */
class Round {
  pace: PaceResult = 'neutral';
  /** Of the destination, for the cluster's knowledge of it. */
  #standing: Answer['standing'] = 'ours';
  #reply: DeliveryReply | undefined;
  #tls: string | undefined;
  #attemptsLeft: number;
  readonly #pending: QueueRecipient[];
  readonly #open: OpenRecipients;

  constructor(
    private readonly d: RemoteDeliveryDependencies,
    private readonly talk: ConversationDependencies,
    private readonly ownPlaces: () => OwnPlaces,
    private readonly ownTrouble: OwnTrouble,
    private readonly input: RoundInput,
  ) {
    this.#pending = input.claimed.destination.recipients.filter(isPending);
    this.#open = new Map(this.#pending.map(({ address }) => [address, { address, ...untried }]));
    this.#attemptsLeft = input.settings.maxHostsPerAttempt;
  }

  async run(): Promise<void> {
    const { d, talk, input } = this;
    const { claimed, settings, facts } = input;
    const { destination } = claimed;
    const routeName = await talk.choices.routeName(settings.outbound, facts);
    const addressOrder = await talk.choices.addressOrder(settings.outbound, facts);
    const lookup = { ...d, settings, routeName, addressOrder, override: destination.route };
    const route = await findRoute(lookup, destination.domain);
    if (route.kind === 'local') return this.#deliverLocally();
    if (route.kind !== 'hosts') {
      if (route.kind === 'deferred' && !route.isOurs) this.#note('unreachable', route.reply);
      return this.#save(sameVerdict(this.#pending, { verdict: route.kind, reply: route.reply }), {});
    }
    for (const [place, hosts] of [route.hosts, route.fallback].entries()) {
      // Who was refused for good by the domain's own hosts is not asked for elsewhere.
      if (place > 0 && ![...this.#open.values()].some(({ verdict }) => verdict === 'deferred')) break;
      if (await this.#try(hosts, addressOrder, route.authenticated)) return;
    }
    await this.#save([...this.#open.values()], { tls: this.#tls });
  }

  /** As the directory stands now: whom it does not have is unknown (5.1.1), whatever other servers might say. */
  async #deliverLocally(): Promise<void> {
    const { claimed } = this.input;
    await this.d.deliverLocal({ claimed });
    // Its own hosts may have been down before the route was set: they are not asked any more.
    void this.d.destinations?.report({ domain: claimed.destination.domain, result: 'reached' });
  }

  /** Tells the cluster what was learnt of the domain. */
  report(): void {
    const { domain, route } = this.input.claimed.destination;
    const { destinations } = this.d;
    if (this.#standing === 'reached') this.ownTrouble.reached();
    // Where an operator has sent this one says nothing about where its domain's mail goes.
    if (this.#standing === 'ours' || route) return;
    if (this.#standing === 'unreachable' && !this.ownTrouble.isTheirs(domain)) {
      if (this.talk.memory.isNews('own trouble', 300))
        this.d.logger.error({ domain, ...this.#reply }, 'nobody can be reached: no domain is held for down on that account');
      return;
    }
    void destinations?.report({ domain, result: this.#standing, ...(this.#reply ? { reply: this.#reply } : {}) });
  }

  /** Whether all recipients are decided. */
  async #try(hosts: readonly RouteStop[], order: AddressOrder, isRouteAuthenticated: boolean): Promise<boolean> {
    const { settings } = this.input;
    for (const stop of hosts) {
      if (this.#attemptsLeft <= 0) break;
      const found = await stop.resolve();
      if (found.status === 'failed') {
        const { verdict, reply } = unresolved(found, stop.hostname);
        this.#keepOpen(sameVerdict(this.#pending, { verdict, reply }));
        this.#note('unreachable', reply);
        continue;
      }
      const { memory } = this.talk;
      const isDown = (family: 4 | 6) => memory.recall(familyMemory(family)) !== undefined;
      for (const address of inOrder(found.addresses, order, isDown)) {
        if (this.#leadsHome(stop, address)) {
          // RFC 5321 5.1: what comes after ourselves must not be tried either.
          this.#keepOpen(sameVerdict(this.#pending, { verdict: 'failed', reply: { ...mailLoops, host: stop.hostname } }));
          return false;
        }
        if (this.#attemptsLeft-- <= 0) break;
        const authenticated = isRouteAuthenticated && found.authenticated;
        if (await this.#ask({ stop, address, authenticated, settings, facts: this.input.facts })) return true;
      }
    }
    return false;
  }

  #leadsHome(stop: RouteStop, address: string): boolean {
    const { endpoints, interfaces } = this.ownPlaces();
    const { isConfigured, protocol } = stop.transport;
    if (!isConfigured) return leadsHome(address, stop.port, endpoints, interfaces);
    // An operator may mean a server on this machine, but never the very place that it came from.
    return protocol === 'smtp' && endpoints.some((own) => own.address === address && own.port === stop.port);
  }

  /** All that this host takes, in as many transactions as it wants. Answers whether all recipients are decided. */
  async #ask(attempt: Attempt): Promise<boolean> {
    const { claimed, signal } = this.input;
    let recipients = this.#pending.filter(({ address }) => this.#open.has(address));
    for (;;) {
      const answer = await converse(this.talk, attempt, claimed, recipients, signal);
      if (answer.isNetworkMissing) this.#attemptsLeft++;
      this.#learn(answer);
      for (const { address } of answer.verdicts) this.#open.delete(address);
      this.#keepOpen(answer.open.values());
      // TRAPS 14: what the peer has answered is saved before anything else is tried.
      if (answer.verdicts.length > 0) {
        const { tls, isDeliverByPassedOn } = answer;
        await this.#save(answer.verdicts, { keepClaim: this.#open.size > 0, tls, isDeliverByPassedOn });
      }
      if (this.#open.size === 0) return true;
      if (answer.again.size === 0) return false;
      recipients = recipients.filter(({ address }) => answer.again.has(address));
    }
  }

  #learn({ standing, pace, reply, tls }: Answer): void {
    if (pace === 'good' || this.pace === 'neutral') this.pace = pace;
    this.#tls = tls;
    this.#note(standing, reply);
  }

  /** One host that was reached is enough. */
  #note(standing: Answer['standing'], reply: DeliveryReply | undefined): void {
    if (standing === 'ours' || this.#standing === 'reached') return;
    this.#standing = standing;
    this.#reply = reply;
  }

  /** Notes what a host said of recipients that are still open; where any host said "later", "never" of another does not count. */
  #keepOpen(verdicts: Iterable<RecipientVerdict>): void {
    for (const verdict of verdicts) {
      const before = this.#open.get(verdict.address);
      if (!before) continue;
      const isFirst = before.reply === untried.reply;
      if (isFirst || before.verdict === 'failed' || verdict.verdict === 'deferred') this.#open.set(verdict.address, verdict);
    }
  }

  async #save(verdicts: RecipientVerdict[], more: Pick<SettleInput, 'keepClaim' | 'tls' | 'isDeliverByPassedOn'>): Promise<void> {
    const { d, input } = this;
    const saving = untilSaved(d, () => d.settle({ claimed: input.claimed, verdicts, kind: 'remote', ...more }), input.stopping);
    // Not before the saving has begun: the next delivery comes after it.
    if (!more.keepClaim) input.onAnswered();
    await saving;
  }
}
