/** Every limit of an SMTP session, with its default. */

export interface SmtpLimits {
  /** A command line with its CRLF, octets. RFC 5321 4.5.3.1.4 asks for 512 and extensions for more. */
  maxCommandBytes: number;
  /** A line of AUTH and its exchange, octets (RFC 4954 4). */
  maxAuthLineBytes: number;
  /** Accepted recipients of one message; beyond, 452 4.5.3. RFC 5321 4.5.3.1.8 asks for at least 100. */
  maxRecipients: number;
  /** A message's content, octets; announced as SIZE. */
  maxMessageBytes: number;
  /** Transactions of one session; beyond, 421. */
  maxMessages: number;
  /** Commands the session itself refused (syntax, order); then 421. */
  maxErrors: number;
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
  maxMessageBytes: 52_428_800,
  maxMessages: 1000,
  maxErrors: 20,
  maxAuthFailures: 5,
  commandTimeoutMs: 300_000,
  dataTimeoutMs: 180_000,
  messageTimeoutMs: 3_600_000,
  sessionTimeoutMs: 14_400_000,
  tlsHandshakeTimeoutMs: 30_000,
  greetingDelayMs: 0,
  maxUnreadReplyBytes: 65_536,
  maxPendingInputBytes: 131_072,
  lingerMs: 5_000,
  bareLineEnds: 'refuse',
  nul: 'refuse',
};
