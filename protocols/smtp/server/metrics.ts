/** Counters of the SMTP server. Labels: `mode` mx, submission or lmtp; `code` the three digits of the reply. */
import { counter } from '../../../ops/telemetry/index.js';

export const sessionsTotal = counter('starling_smtp_sessions_total', 'SMTP and LMTP sessions begun', ['mode'] as const);

/** `result`: accepted, rejected (5xx), deferred (4xx), lost (the client went away before the end). LMTP counts per recipient. */
export const messagesTotal = counter('starling_smtp_messages_total', 'Messages whose content was received', [
  'mode',
  'result',
] as const);

/** `result`: ok, invalid, disabled, unavailable, too-many, malformed, cancelled. */
export const authTotal = counter('starling_smtp_auth_total', 'AUTH exchanges', ['mechanism', 'result'] as const);

/** `stage`: connect, command, ehlo, starttls, auth, mail, rcpt, data. */
export const rejectsTotal = counter('starling_smtp_rejects_total', 'Refusing replies', ['mode', 'stage', 'code'] as const);

/** Refusals that were held back for the time that policy asks for. */
export const tarpitTotal = counter('starling_smtp_tarpit_total', 'Refusing replies that were delayed', ['mode'] as const);

/** `command`: xclient, xforward. `result`: taken, refused. */
export const proxiedTotal = counter('starling_smtp_proxied_total', 'XCLIENT and XFORWARD commands', [
  'mode',
  'command',
  'result',
] as const);
