/** The `with` word of a Received field: RFC 5321 4.4, RFC 3848, RFC 6531 4.3. */
import type { SessionInfo } from './handler.js';

/** Such as `ESMTPSA`, `UTF8SMTPS`, `LMTP`; `SMTP` after a HELO. */
export function transmissionType(
  session: Pick<SessionInfo, 'mode' | 'extended' | 'secure' | 'principal'>,
  smtpUtf8: boolean,
): string {
  if (session.mode !== 'lmtp' && !session.extended) return 'SMTP';
  const base = session.mode === 'lmtp' ? (smtpUtf8 ? 'UTF8LMTP' : 'LMTP') : smtpUtf8 ? 'UTF8SMTP' : 'ESMTP';
  return `${base}${session.secure ? 'S' : ''}${session.principal ? 'A' : ''}`;
}
