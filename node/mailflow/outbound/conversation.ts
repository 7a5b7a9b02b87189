/**
 * One message to one address of one host: under which terms, over which connection, and what the peer's answers mean for the recipients. A connection that was idle
 * and turns out dead is replaced by a fresh one.
 */
import { isIPv6 } from 'node:net';
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import { type ConnectOptions, SmtpConnectError, type TlsOutcome } from '../../../protocols/smtp/client/contract.js';
import type { BlobStore } from '../../../store/blobs/contract.js';
import type { ClaimedDestination, QueueRecipient } from '../../../store/queue/index.js';
import type { ConnectionPool, OutgoingConnection } from '../connection-pool.js';
import type { RouteStop } from '../remote-route.js';
import type { MailflowSettings } from '../settings.js';
import type { RecipientVerdict } from '../types.js';
import { type Answer, answerOf, isDeadConnection, sameVerdict } from './answer.js';
import type { Facts, OutboundChoices } from './choices.js';
import { outgoing, watchedContent } from './content.js';
import type { TlsPolicy } from './contract.js';
import type { HostMemory } from './host-memory.js';
import { connectionsTotal } from './metrics.js';
import { type HostTls, hostTls } from './tls.js';

export interface ConversationDependencies {
  blobs: Pick<BlobStore, 'stream' | 'read'>;
  clock: Clock;
  logger: Logger;
  pool: ConnectionPool;
  memory: HostMemory;
  choices: OutboundChoices;
  policy?: TlsPolicy;
  connect(options: ConnectOptions): Promise<OutgoingConnection>;
  /** Whether this node may hand messages to others now. */
  maySend?: () => boolean;
}

/** One address of one host, to be tried. */
export interface Attempt {
  stop: RouteStop;
  address: string;
  /** The way from the domain to this address is proved by DNSSEC. */
  authenticated: boolean;
  settings: MailflowSettings;
  facts: Facts;
}

/** How a host is spoken to this time. */
interface Terms {
  tls: HostTls;
  localAddress: string | undefined;
  heloName: string;
  eightBit: 'send' | 'return';
}

export async function converse(
  d: ConversationDependencies,
  attempt: Attempt,
  claimed: ClaimedDestination,
  recipients: readonly QueueRecipient[],
  signal: AbortSignal,
): Promise<Answer> {
  const terms = await termsOf(d, attempt, claimed);
  if ('verdict' in terms) return refusedHere(recipients, terms);
  const { stop, address } = attempt;
  const key = keyOf(attempt, terms);
  for (;;) {
    let pooled: Awaited<ReturnType<ConnectionPool['acquire']>>;
    try {
      pooled = await d.pool.acquire(key, () => open(d, attempt, terms, signal));
    } catch (error) {
      if (signal.aborted || !(error instanceof SmtpConnectError)) throw error;
      connectionsTotal.inc({ result: 'failed' });
      return connectFailure(d, attempt, terms, claimed, recipients, error);
    }
    const { connection, isReused } = pooled;
    if (isReused) connectionsTotal.inc({ result: 'reused' });
    const content = watchedContent(d, claimed);
    try {
      const result = await connection.send(outgoing(claimed, recipients, content, terms.eightBit), signal);
      d.pool.release(key, connection, result.reusable);
      // Our own store's fault, not the peer's: it is no attempt.
      if (content.failure && !result.recipients.some(({ outcome }) => outcome === 'delivered')) throw content.failure;
      if (isReused && result.recipients.every(isDeadConnection)) continue;
      return answerOf(d.logger, { host: stop.hostname, address, tls: describeTls(connection.tls) }, claimed, result);
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }
}

/** TLS, addresses and names for this host; or what keeps it from being asked. */
async function termsOf(
  { choices, policy, memory }: ConversationDependencies,
  { stop, address, authenticated, settings, facts }: Attempt,
  { message, destination }: ClaimedDestination,
): Promise<Terms | Omit<RecipientVerdict, 'address'>> {
  const { hostname: host, port, transport } = stop;
  const known = () => ({ ...facts(), mx: host, mx_ip: address });
  const { outbound, sourceAddress } = settings;
  const decision = transport.isConfigured
    ? undefined
    : await policy?.forHost({ domain: destination.domain, host, port, authenticated });
  if (decision?.mode === 'skip') {
    return { verdict: 'deferred', reply: { code: 0, enhanced: decision.enhanced, text: decision.reason, host }, ip: address };
  }
  const demand = transport.tls ?? (await choices.tls(outbound, known));
  const tls = hostTls(demand, decision, message.requiresTls === true, memory.recall(tlsMemory(host, port)));
  const isSameFamily = sourceAddress !== undefined && isIPv6(sourceAddress) === isIPv6(address);
  return {
    tls,
    localAddress: (await choices.sourceAddress(outbound, address, known)) ?? (isSameFamily ? sourceAddress : undefined),
    heloName: (await choices.heloName(outbound, known)) ?? settings.hostname,
    eightBit: await choices.eightBit(outbound, known),
  };
}

const tlsMemory = (host: string, port: number): string => `tls ${host}:${port}`;

/** The network of this machine lacks the peer's family. */
const missingNetwork = new Set(['ENETUNREACH', 'EAFNOSUPPORT', 'EADDRNOTAVAIL']);
/** What this machine is short of. With `missingNetwork`: our own trouble, and no word about the host. */
const ownShortage = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EADDRINUSE', 'ENETDOWN', 'EACCES', 'EPERM']);
export const familyMemory = (family: 4 | 6): string => `family ${family}`;

/** Everything that connections differ by: one message must not go out under another's terms. */
function keyOf({ stop, address }: Attempt, { tls, localAddress, heloName }: Terms): string {
  const { transport, port } = stop;
  const { login } = transport.auth ?? {};
  return [
    stop.hostname,
    address,
    port,
    transport.protocol,
    transport.name,
    tls.demand,
    tls.reason,
    login,
    localAddress,
    heloName,
  ].join('|');
}

async function open(
  d: ConversationDependencies,
  attempt: Attempt,
  terms: Terms,
  signal: AbortSignal,
): Promise<OutgoingConnection> {
  const { stop, address, settings } = attempt;
  const { hostname: host, port, transport } = stop;
  const options: ConnectOptions = {
    address,
    port,
    hostname: host,
    localAddress: terms.localAddress,
    heloName: terms.heloName,
    protocol: transport.protocol,
    tls: terms.tls.tls,
    auth: transport.auth,
    timeouts: settings.outbound.timeouts,
    clock: d.clock,
    logger: d.logger,
    signal,
  };
  const connection = await fromSomewhere(d, options);
  connectionsTotal.inc({ result: 'opened' });
  const { tls } = connection;
  if (tls?.isHandshakeBroken) {
    connectionsTotal.inc({ result: 'plain' });
    d.memory.remember(tlsMemory(host, port), tls.problem ?? 'TLS failed', settings.outbound.tlsFailureMemorySeconds);
    d.logger.info({ host, address, problem: tls.problem }, 'TLS with this host does not work; going on without');
  }
  return connection;
}

/** From the chosen address; from any when this machine does not have it (it may have moved to another node). */
async function fromSomewhere(d: ConversationDependencies, options: ConnectOptions): Promise<OutgoingConnection> {
  try {
    return await d.connect(options);
  } catch (error) {
    const { localAddress } = options;
    const isMissing = error instanceof SmtpConnectError && error.systemCode === 'EADDRNOTAVAIL' && localAddress !== undefined;
    if (!isMissing) throw error;
    if (d.memory.isNews(`source ${localAddress}`, 3_600))
      d.logger.warn(
        { localAddress },
        'this machine does not have the address that mail is to be sent from; the system chooses one',
      );
    return d.connect({ ...options, localAddress: undefined });
  }
}

function refusedHere(recipients: readonly QueueRecipient[], verdict: Omit<RecipientVerdict, 'address'>): Answer {
  const open = new Map(sameVerdict(recipients, verdict).map((one) => [one.address, one]));
  return { verdicts: [], open, again: new Set(), standing: 'ours', pace: 'neutral', reply: verdict.reply };
}

function connectFailure(
  d: ConversationDependencies,
  { stop, address, settings }: Attempt,
  terms: Terms,
  { message, destination }: ClaimedDestination,
  recipients: readonly QueueRecipient[],
  error: SmtpConnectError,
): Answer {
  const { hostname: host } = stop;
  const { stage, code, message: text, systemCode, tls } = error;
  d.logger.info(
    { queueId: message.id, domain: destination.domain, host, address, stage, code, text },
    'no delivery through this host',
  );
  const isNetworkMissing = stage === 'connect' && systemCode !== undefined && missingNetwork.has(systemCode);
  if (isNetworkMissing)
    d.memory.remember(familyMemory(isIPv6(address) ? 6 : 4), text, settings.outbound.familyFailureMemorySeconds);
  const isTlsFailed = tls?.problem !== undefined;
  // RFC 8689 4.2.1: what can't have its TLS here is not kept in the hope that it may later.
  const isTlsRefused = message.requiresTls === true && isTlsFailed && code < 500;
  let verdict: Omit<RecipientVerdict, 'address'> = {
    verdict: error.outcome === 'permanent' || isTlsRefused ? 'failed' : 'deferred',
    reply: { code: isTlsRefused ? 0 : code, enhanced: isTlsRefused ? '5.7.10' : error.enhanced, text, host },
    ip: address,
  };
  // Our password at the relay is wrong, which no sender can mend: the mail waits for the operator.
  if (stage === 'auth') {
    const refusal = code === 0 ? text : `The host does not take our login: ${code} ${text}`;
    verdict = { ...verdict, verdict: 'deferred', reply: { code: 0, enhanced: '4.7.8', text: refusal, host } };
  }
  // Neither what we lack ourselves nor what one sender alone demands of a host is a reason to keep others' mail from it.
  const isOurs = isNetworkMissing || (systemCode !== undefined && ownShortage.has(systemCode));
  if (isOurs) return { ...refusedHere(recipients, verdict), isNetworkMissing };
  const isDemandOfOne = isTlsFailed && terms.tls.reason === 'requiretls';
  const standing = isDemandOfOne ? 'ours' : 'unreachable';
  return { ...refusedHere(recipients, verdict), standing, pace: isDemandOfOne ? 'neutral' : 'bad', isNetworkMissing };
}

/** For history and log: protocol, cipher, and whether the certificate was good. */
function describeTls(tls: TlsOutcome | undefined): string | undefined {
  if (!tls?.used) return undefined;
  return `${tls.protocol} ${tls.cipher}${tls.authorized ? ' verified' : ''}`;
}
