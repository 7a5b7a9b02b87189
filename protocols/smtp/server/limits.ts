/** Every limit of an SMTP session, with its default. */

export interface SmtpLimits {
  /** A command line with its CRLF, octets. RFC 5321 4.5.3.1.4 asks for 512 and extensions for more. */
  maxCommandBytes: number;
  /** A line of AUTH and its exchange, octets (RFC 4954 4). */
  maxAuthLineBytes: number;
  /** Accepted recipients of one message; beyond, 452 4.5.3. RFC 5321 4.5.3.1.8 asks for at least 100. Announced as RCPTMAX. */
  maxRecipients: number;
  /** Domains of all recipients accepted in a session; beyond, 452 4.5.3. Announced as RCPTDOMAINMAX (RFC 9422). 0: no limit. */
  maxRecipientDomains: number;
  /** A message's content, octets; announced as SIZE. */
  maxMessageBytes: number;
  /** A refused BDAT chunk is read to its end and dropped; one that is larger, octets, ends the session. */
  maxDroppedChunkBytes: number;
  /** Transactions of one session; beyond, 421. Announced as MAILMAX (RFC 9422). */
  maxMessages: number;
  /** Commands the session itself refused (syntax, order); then 421. */
  maxErrors: number;
  /**
   * Recipients refused for good (5xx) in a session; then 421, so that nobody tries out which addresses there are. 0: no limit. Whoever has logged in or speaks
   * LMTP, an MTA of ours, is not counted.
   */
  maxRefusedRecipients: number;
  /** Failed logins; then 421. */
  maxAuthFailures: number;
  /** Waiting for the next complete command line. */
  commandTimeoutMs: number;
  /** Waiting for the next octets of a message. */
  dataTimeoutMs: number;
  /** From DATA or the first BDAT to the end of the content, however steadily it trickles. */
  messageTimeoutMs: number;
  /** A whole session. */
  sessionTimeoutMs: number;
  tlsHandshakeTimeoutMs: number;
  /** How far ahead a message may be held with FUTURERELEASE (RFC 4865), seconds, below 1e9; announced. 0: the extension is not offered. */
  maxHoldSeconds: number;
  /** Shortest time of BY=…;R (RFC 2852), seconds; announced when above 0. */
  minDeliverBySeconds: number;
  /** Longest wait before a refusal, whatever policy asks for. */
  maxTarpitMs: number;
  /** Pause before the greeting: who talks into it is no mail server. */
  greetingDelayMs: number;
  /** Replies that the client does not read, octets; then no more commands are taken until it does. */
  maxUnreadReplyBytes: number;
  /** Input kept while a command is at work; then reading pauses. */
  maxPendingInputBytes: number;
  /** How long the last reply may take to leave before the socket is destroyed. */
  lingerMs: number;
  /** A bare CR or LF in content: refuse the message (550 5.6.11), or make it CRLF. In commands a bare LF is refused or accepted. */
  bareLineEnds: 'refuse' | 'normalise';
  /** NUL in content outside BINARYMIME. */
  nul: 'refuse' | 'allow';
}

export const defaultSmtpLimits: SmtpLimits = {
  maxCommandBytes: 4096,
  maxAuthLineBytes: 12_288,
  maxRecipients: 1000,
  maxRecipientDomains: 0,
  maxMessageBytes: 52_428_800,
  maxDroppedChunkBytes: 268_435_456,
  maxMessages: 1000,
  maxErrors: 20,
  maxRefusedRecipients: 100,
  maxAuthFailures: 5,
  commandTimeoutMs: 300_000,
  dataTimeoutMs: 180_000,
  messageTimeoutMs: 3_600_000,
  sessionTimeoutMs: 14_400_000,
  tlsHandshakeTimeoutMs: 30_000,
  maxHoldSeconds: 2_592_000,
  minDeliverBySeconds: 60,
  maxTarpitMs: 30_000,
  greetingDelayMs: 0,
  maxUnreadReplyBytes: 65_536,
  maxPendingInputBytes: 131_072,
  lingerMs: 5_000,
  bareLineEnds: 'refuse',
  nul: 'refuse',
};

/** `partial` over `base`; what is undefined in it changes nothing. */
export function withLimits(base: SmtpLimits, partial: Partial<SmtpLimits> | undefined): SmtpLimits {
  if (!partial) return base;
  const given = Object.entries(partial).filter(([, value]) => value !== undefined);
  return given.length === 0 ? base : { ...base, ...Object.fromEntries(given) };
}

const completed = new WeakMap<object, SmtpLimits>();

/** `partial` over the defaults, made once for each such object: all sessions of a listener share it. It must not be changed afterwards. */
export function completeLimits(partial: Partial<SmtpLimits> | undefined): SmtpLimits {
  if (!partial) return defaultSmtpLimits;
  let limits = completed.get(partial);
  if (!limits) completed.set(partial, (limits = withLimits(defaultSmtpLimits, partial)));
  return limits;
}
