/** The limits of SMTP and IMAP sessions as the settings have them. A session keeps those that it began with. */
import { defaultImapLimits, type ImapLimits } from '../../protocols/imap/index.js';
import { defaultSmtpLimits, type SmtpLimits } from '../../protocols/smtp/server/index.js';
import type { ClusterSettings } from './sections.js';

export function smtpLimits({ smtp }: Pick<ClusterSettings, 'smtp'>): SmtpLimits {
  const { maxMessageBytes, maxRecipients, bareLineEnds, commandTimeoutSeconds, dataTimeoutSeconds } = smtp;
  return {
    ...defaultSmtpLimits,
    maxMessageBytes,
    maxRecipients,
    bareLineEnds,
    commandTimeoutMs: commandTimeoutSeconds * 1000,
    dataTimeoutMs: dataTimeoutSeconds * 1000,
  };
}

export function imapLimits({ imap }: Pick<ClusterSettings, 'imap'>): ImapLimits {
  const { maxAppendBytes, idleKeepAliveSeconds, autoLogoutSeconds } = imap;
  return {
    ...defaultImapLimits,
    grammar: { ...defaultImapLimits.grammar, maxMessageBytes: maxAppendBytes },
    keepAliveMs: idleKeepAliveSeconds * 1000,
    idleTimeoutMs: autoLogoutSeconds * 1000,
  };
}
