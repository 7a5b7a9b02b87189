/**
 * Delivers claimed destinations of other domains: finds the hosts, speaks to them in turn, and saves what each has answered at once. What a
 * peer may have taken although its answer was lost is tried again: at least once (RFC 5321 4.5.5), and said in the log.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { Resolver } from '../../protocols/dns/index.js';
import {
  type ConnectOptions,
  type OutgoingMessage,
  type RecipientResult,
  SmtpConnectError,
} from '../../protocols/smtp/client/contract.js';
import { BlobMissing, type BlobStore } from '../../store/blobs/contract.js';
import { KvError } from '../../store/kv/contract.js';
import { type ClaimedDestination, ClaimLost, type QueueRecipient } from '../../store/queue/index.js';
import { isAscii } from './addresses.js';
import { type ConnectionPool, createConnectionPool, type OutgoingConnection } from './connection-pool.js';
import { attemptsTotal } from './metrics.js';
import { untilSaved } from './persist.js';
import { findRoute, unresolved } from './remote-route.js';
import type { MailflowSettings } from './settings.js';
import { isPending, type Settle } from './settle.js';
import type { DeliveryJob, DeliveryReply, RecipientVerdict } from './types.js';

export interface RemoteDeliveryDependencies {
  blobs: BlobStore;
  settle: Settle;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** What holds now; a delivery keeps to what it began with: a relay host's password must not go to another. */
  settings: () => MailflowSettings;
  resolver: Resolver;
  connect(options: ConnectOptions): Promise<OutgoingConnection>;
  /** Whether this node may hand messages to others: not while it may have been declared dead, and another may be sending them. Default: always. */
  maySend?: () => boolean;
}

export interface RemoteDelivery {
  /** Delivers one claimed destination as far as it gets now. Throws ClaimLost, or what `signal` was aborted with. */
  deliver(job: DeliveryJob, signal: AbortSignal): Promise<void>;
  close(): void;
}

/** One address of one host, to be tried. */
interface Attempt {
  host: string;
  address: string;
  settings: MailflowSettings;
}

/** Recipients that no host has decided about, each with what was said last. */
type OpenRecipients = Map<string, RecipientVerdict>;

/** What one host's answer means for the recipients that were offered to it. */
interface Answer {
  verdicts: RecipientVerdict[];
  /** Another host may do better for these; what this one said is kept in case that there is none. */
  open: OpenRecipients;
}

const timeOver = {
  verdict: 'deferred',
  reply: { code: 0, enhanced: '4.4.2', text: 'The delivery took too long' },
} as const;
const contentLost = {
  verdict: 'failed',
  reply: { code: 0, enhanced: '5.3.0', text: 'The content of this message is lost' },
} as const;

export function createRemoteDelivery(d: RemoteDeliveryDependencies): RemoteDelivery {
  // How long connections wait for more is no setting that changes: the pool outlives any change.
  const { maxIdleConnectionsPerHost, idleConnectionSeconds } = d.settings();
  const pool = createConnectionPool({
    clock: d.clock,
    maxIdlePerHost: maxIdleConnectionsPerHost,
    idleMs: idleConnectionSeconds * 1000,
  });

  /** `signal` ends conversations; only `stopping` ends the saving: what a peer has answered stays true when the time is over. */
  async function attemptAll(
    claimed: ClaimedDestination,
    settings: MailflowSettings,
    signal: AbortSignal,
    stopping: AbortSignal,
  ): Promise<void> {
    const save = (verdicts: RecipientVerdict[], keepClaim: boolean) =>
      untilSaved(d, () => d.settle({ claimed, verdicts, kind: 'remote', keepClaim }), stopping);
    const pending = claimed.destination.recipients.filter(isPending);
    const route = await findRoute({ ...d, settings }, claimed.destination.domain);
    if (route.kind !== 'hosts') {
      await save(sameVerdict(pending, { verdict: route.kind, reply: route.reply }), false);
      return;
    }
    const open: OpenRecipients = new Map(pending.map(({ address }) => [address, { address, ...untried }]));
    let attemptsLeft = settings.maxHostsPerAttempt;
    for (const host of route.hosts) {
      const found = await host.resolve();
      if (found.status === 'failed') keepOpen(open, sameVerdict(pending, unresolved(found, host.hostname)));
      for (const address of found.status === 'found' ? found.addresses : []) {
        if (attemptsLeft-- <= 0) break;
        const recipients = pending.filter((recipient) => open.has(recipient.address));
        const answer = await tryHost(d, pool, { host: host.hostname, address, settings }, claimed, recipients, signal);
        for (const verdict of answer.verdicts) open.delete(verdict.address);
        keepOpen(open, answer.open.values());
        // TRAPS 14: what the peer has answered is saved before anything else is tried.
        if (answer.verdicts.length > 0) await save(answer.verdicts, open.size > 0);
        if (open.size === 0) return;
      }
    }
    await save([...open.values()], false);
  }

  return {
    async deliver({ claimed }, signal) {
      // Not AbortSignal.any: what it hangs on a signal as long-lived as `signal` is never taken off again.
      const settings = d.settings();
      const ending = new AbortController();
      const stop = () => ending.abort(signal.reason);
      if (signal.aborted) stop();
      signal.addEventListener('abort', stop, { once: true });
      const timer = d.clock.setTimer(settings.maxRemoteDeliverySeconds * 1000, () => ending.abort(new DeliveryTimeout()), {
        background: true,
      });
      try {
        await attemptAll(claimed, settings, ending.signal, signal);
      } catch (error) {
        const isTimeUp = ending.signal.aborted && !signal.aborted && !(error instanceof ClaimLost);
        if (!isTimeUp && !(error instanceof BlobMissing)) throw error;
        if (!isTimeUp) d.logger.error({ queueId: claimed.message.id, err: error }, 'content of a queued message is missing');
        const pending = claimed.destination.recipients.filter(isPending);
        const verdicts = sameVerdict(pending, isTimeUp ? timeOver : contentLost);
        await untilSaved(d, () => d.settle({ claimed, verdicts, kind: 'remote' }), signal);
      } finally {
        timer.cancel();
        signal.removeEventListener('abort', stop);
      }
    },
    close: () => pool.close(),
  };
}

class DeliveryTimeout extends Error {
  override readonly name = 'DeliveryTimeout';
}

function sameVerdict(recipients: readonly QueueRecipient[], verdict: Omit<RecipientVerdict, 'address'>): RecipientVerdict[] {
  return recipients.map(({ address }) => ({ address, ...verdict }));
}

/** Before anybody was asked. */
const untried: Omit<RecipientVerdict, 'address'> = {
  verdict: 'deferred',
  reply: { code: 0, enhanced: '4.4.1', text: 'No mail host of this domain could be tried' },
};

/** Notes what a host said of recipients that are still open; where any host said "later", "never" of another does not count. */
function keepOpen(open: OpenRecipients, verdicts: Iterable<RecipientVerdict>): void {
  for (const verdict of verdicts) {
    const before = open.get(verdict.address);
    if (!before) continue;
    const isFirst = before.reply === untried.reply;
    if (isFirst || before.verdict === 'failed' || verdict.verdict === 'deferred') open.set(verdict.address, verdict);
  }
}

/** One conversation; a connection that was idle and turns out dead is replaced by a fresh one. */
async function tryHost(
  d: RemoteDeliveryDependencies,
  pool: ConnectionPool,
  attempt: Attempt,
  claimed: ClaimedDestination,
  recipients: readonly QueueRecipient[],
  signal: AbortSignal,
): Promise<Answer> {
  const { relayHost, smtpPort } = attempt.settings;
  const port = relayHost?.port ?? smtpPort;
  const key = [attempt.host, attempt.address, port, relayHost?.tls, relayHost?.user].join('|');
  for (;;) {
    let pooled: Awaited<ReturnType<ConnectionPool['acquire']>>;
    try {
      pooled = await pool.acquire(key, () => d.connect(connectOptions(d, attempt, port, signal)));
    } catch (error) {
      if (signal.aborted || !(error instanceof SmtpConnectError)) throw error;
      return connectFailure(d, attempt, claimed, recipients, error);
    }
    const { connection, isReused } = pooled;
    const content = watchedContent(d, claimed);
    try {
      const result = await connection.send(outgoing(claimed, recipients, content), signal);
      pool.release(key, connection, result.reusable);
      // Our own store's fault, not the peer's: it is no attempt.
      if (content.failure && !result.recipients.some(({ outcome }) => outcome === 'delivered')) throw content.failure;
      if (isReused && result.recipients.every(isDeadConnection)) continue;
      return judge(d, attempt, claimed, result.recipients, result.dsnPassedOn);
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }
}

interface WatchedContent {
  /** Why it could not be read, or not be sent to its end. */
  failure: unknown;
  open(): AsyncIterable<Buffer>;
  mayComplete(): boolean;
}

/** The message without our own front. */
function watchedContent(d: RemoteDeliveryDependencies, { message }: ClaimedDestination): WatchedContent {
  const content: WatchedContent = {
    failure: undefined,
    // A process that was stopped in the middle of a conversation wakes here: its claims may be another's by now.
    mayComplete() {
      const may = d.maySend?.() ?? true;
      if (!may) content.failure = new KvError('unavailable', 'this node may have been declared dead', 'outage');
      return may;
    },
    async *open() {
      try {
        yield* d.blobs.stream(message.blobId, { start: message.relayOffsetBytes });
      } catch (error) {
        content.failure = error;
        throw error;
      }
    },
  };
  return content;
}

/** The connection was gone before the peer could say a word about this message. */
function isDeadConnection({ outcome, code, stage }: RecipientResult): boolean {
  return outcome === 'temporary' && (stage === 'mail' || stage === 'rset') && (code === 0 || code === 421);
}

function connectOptions(
  { clock, logger }: RemoteDeliveryDependencies,
  { host, address, settings }: Attempt,
  port: number,
  signal: AbortSignal,
): ConnectOptions {
  const relay = settings.relayHost;
  return {
    address,
    port,
    hostname: host,
    localAddress: settings.sourceAddress,
    heloName: settings.hostname,
    tls: { mode: relay?.tls ?? 'opportunistic' },
    auth: relay?.user === undefined ? undefined : { login: relay.user, password: relay.password ?? '' },
    clock,
    logger,
    signal,
  };
}

function outgoing(
  { message }: ClaimedDestination,
  recipients: readonly QueueRecipient[],
  { open, mayComplete }: WatchedContent,
): OutgoingMessage {
  return {
    from: message.from,
    recipients: recipients.map(({ address, notify, orcpt }) => ({ address, notify, originalRecipient: typedOriginal(orcpt) })),
    ret: message.ret,
    envelopeId: message.envid,
    body: {
      sizeBytes: message.sizeBytes - message.relayOffsetBytes,
      eightBit: message.body !== '7BIT',
      // RFC 6531 3.4: what came with SMTPUTF8 needs it again only if something in it does; the client looks at the addresses.
      utf8: message.isUtf8 && (message.body !== '7BIT' || !isAscii(message.from)),
      binary: message.body === 'BINARYMIME',
      open,
      mayComplete,
    },
  };
}

/** `orcpt` is kept as `type;address`. */
function typedOriginal(orcpt: string | undefined): { type: string; address: string } | undefined {
  if (orcpt === undefined) return undefined;
  const at = orcpt.indexOf(';');
  return { type: orcpt.slice(0, at), address: orcpt.slice(at + 1) };
}

function connectFailure(
  d: RemoteDeliveryDependencies,
  { host, address }: Attempt,
  { message, destination }: ClaimedDestination,
  recipients: readonly QueueRecipient[],
  error: SmtpConnectError,
): Answer {
  d.logger.info(
    { queueId: message.id, domain: destination.domain, host, address, stage: error.stage, code: error.code, text: error.message },
    'no delivery through this host',
  );
  const reply: DeliveryReply = { code: error.code, enhanced: error.enhanced, text: error.message, host };
  const verdict = error.outcome === 'permanent' ? 'failed' : 'deferred';
  return { verdicts: [], open: new Map(sameVerdict(recipients, { verdict, reply }).map((one) => [one.address, one])) };
}

/** What the peer said of the message or of a recipient stands for its whole domain; what it said of its own state does not. */
function mayOtherHostDoBetter({ wide, code, stage, outcome }: RecipientResult): boolean {
  if (!wide || code === 0) return wide;
  return outcome === 'temporary' && stage !== 'data' && stage !== 'end-of-data';
}

function judge(
  d: RemoteDeliveryDependencies,
  { host, address: peer }: Attempt,
  { message, destination }: ClaimedDestination,
  results: readonly RecipientResult[],
  dsnPassedOn: boolean,
): Answer {
  const answer: Answer = { verdicts: [], open: new Map() };
  const counts: Record<string, number> = {};
  for (const result of results) {
    const { address, outcome, code, enhanced, text } = result;
    counts[outcome] = (counts[outcome] ?? 0) + 1;
    const reply: DeliveryReply = { code, enhanced, text, host };
    if (outcome === 'delivered') answer.verdicts.push({ address, verdict: 'relayed', reply, dsnPassedOn });
    else if (outcome === 'unknown') {
      attemptsTotal.inc({ kind: 'remote', result: 'unknown' });
      answer.verdicts.push({ address, verdict: 'deferred', reply });
    } else {
      const verdict = outcome === 'permanent' ? 'failed' : 'deferred';
      if (mayOtherHostDoBetter(result)) answer.open.set(address, { address, verdict, reply });
      else answer.verdicts.push({ address, verdict, reply });
    }
  }
  const first = results[0];
  const facts = {
    queueId: message.id,
    domain: destination.domain,
    host,
    address: peer,
    ...counts,
    code: first?.code,
    text: first?.text,
  };
  if (counts['unknown']) d.logger.warn(facts, 'the peer may have taken the message without saying so; it will be sent again');
  else d.logger.info(facts, 'delivery attempt');
  return answer;
}
