/** What administrators may set of the way of a message; plain fields only, so that a schema can be laid over them. */
import { defaultOutboundSettings, type OutboundSettings } from './outbound/contract.js';
import { defaultOutcomeSettings, type OutcomeSettings } from './outcome-settings.js';

/** A host that all outgoing mail goes through instead of the recipients' MX hosts. */
export interface RelayHost {
  /** Name or address. */
  host: string;
  port: number;
  tls: 'none' | 'opportunistic' | 'required' | 'implicit';
  user?: string;
  password?: string;
}

export interface MailflowSettings {
  /** Our name in greetings, Received fields and reports. */
  hostname: string;
  /** Receives mail for `<postmaster>`, and for `postmaster@` of every local domain where nobody else has it. Where it is not ours, an administrator does. */
  postmasterAddress: string;
  /** The MAIL FROM of an authenticated user must be an address that is theirs. */
  senderMustMatch: boolean;
  /** So must all addresses in the From field. */
  fromFieldMustMatch: boolean;
  /** The answer at RCPT for a mailbox that is full: `temporary` 452 4.2.2, `permanent` 552 5.2.2. */
  fullMailboxReply: 'temporary' | 'permanent';
  maxRecipientsPerMessage: number;
  /** More Received fields than this mean a loop (RFC 5321 6.3). */
  maxReceivedFields: number;
  maxHeaderBytes: number;
  /** How long delivery is tried: of messages, and of reports (null reverse-path). */
  messageLifetimeSeconds: number;
  reportLifetimeSeconds: number;
  /** Waits between attempts; the last one repeats. */
  retryDelaysSeconds: readonly number[];
  /** A message that has waited this long is reported as delayed, once. */
  delayReportAfterSeconds: number;
  /** Schedules, reports and lists. */
  outcomes: OutcomeSettings;
  /** A report returns the whole message up to this size, otherwise its header. */
  maxReturnedBytes: number;
  /** Port of other mail servers. */
  smtpPort: number;
  relayHost?: RelayHost;
  /** Local address that remote deliveries come from. */
  sourceAddress?: string;
  maxConnectionsPerDomain: number;
  /** Connections kept open after a delivery, per host, and for how long. */
  maxIdleConnectionsPerHost: number;
  idleConnectionSeconds: number;
  /** MX hosts tried in one attempt. */
  maxHostsPerAttempt: number;
  /** Routes, TLS, addresses, rates and the rest of what leaves. */
  outbound: OutboundSettings;
  /** One delivery to one destination may take this long (RFC 5321 4.5.3.2 allows half an hour and more). */
  maxRemoteDeliverySeconds: number;
}

/** Defaults for a node of this name. */
export function defaultMailflowSettings(hostname: string, postmasterAddress = `postmaster@${hostname}`): MailflowSettings {
  return {
    hostname,
    postmasterAddress,
    senderMustMatch: true,
    fromFieldMustMatch: false,
    fullMailboxReply: 'temporary',
    maxRecipientsPerMessage: 10_000,
    maxReceivedFields: 50,
    maxHeaderBytes: 256 * 1024,
    messageLifetimeSeconds: 5 * 86_400,
    reportLifetimeSeconds: 2 * 86_400,
    retryDelaysSeconds: [60, 300, 900, 1800, 3600, 7200],
    delayReportAfterSeconds: 4 * 3600,
    outcomes: defaultOutcomeSettings,
    maxReturnedBytes: 64 * 1024,
    smtpPort: 25,
    maxConnectionsPerDomain: 10,
    maxIdleConnectionsPerHost: 4,
    idleConnectionSeconds: 20,
    maxHostsPerAttempt: 5,
    maxRemoteDeliverySeconds: 3600,
    outbound: defaultOutboundSettings,
  };
}
