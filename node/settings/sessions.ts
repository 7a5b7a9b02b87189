/** The limits of SMTP, IMAP and POP3 sessions as the settings have them. A session keeps those that it began with. */
import { defaultImapLimits, type ImapLimits } from '../../protocols/imap/index.js';
import { defaultPop3Limits, type Pop3Limits } from '../../protocols/pop3/index.js';
import { defaultSmtpLimits, type SmtpLimits } from '../../protocols/smtp/server/index.js';
import type { ExpressionSource } from '../expressions/index.js';
import { constantOf } from './accept.js';
import { smtp as smtpSchema } from './schemas/smtp.js';
import type { ClusterSettings } from './sections.js';

/** What depends on the session is left as by default here: its policy says it (`accept.ts`). */
export function smtpLimits({ smtp }: Pick<ClusterSettings, 'smtp'>): SmtpLimits {
  const { shape } = smtpSchema;
  const standard = defaultSmtpLimits;
  const seconds = (schema: typeof shape.dataTimeoutSeconds, source: ExpressionSource, otherwiseMs: number) =>
    constantOf(schema, source, otherwiseMs / 1000) * 1000;
  return {
    ...standard,
    maxMessageBytes: constantOf(shape.maxMessageBytes, smtp.maxMessageBytes, standard.maxMessageBytes),
    maxRecipients: constantOf(shape.maxRecipients, smtp.maxRecipients, standard.maxRecipients),
    maxRecipientDomains: constantOf(shape.maxRecipientDomains, smtp.maxRecipientDomains, standard.maxRecipientDomains),
    greetingDelayMs: constantOf(shape.greetingDelayMilliseconds, smtp.greetingDelayMilliseconds, standard.greetingDelayMs),
    maxMessages: constantOf(shape.maxMessagesPerSession, smtp.maxMessagesPerSession, standard.maxMessages),
    maxErrors: constantOf(shape.maxErrors, smtp.maxErrors, standard.maxErrors),
    maxRefusedRecipients: constantOf(shape.maxRefusedRecipients, smtp.maxRefusedRecipients, standard.maxRefusedRecipients),
    maxHoldSeconds: constantOf(shape.maxHoldSeconds, smtp.maxHoldSeconds, standard.maxHoldSeconds),
    minDeliverBySeconds: constantOf(shape.minDeliverBySeconds, smtp.minDeliverBySeconds, standard.minDeliverBySeconds),
    bareLineEnds: constantOf(shape.bareLineEnds, smtp.bareLineEnds, standard.bareLineEnds) as SmtpLimits['bareLineEnds'],
    commandTimeoutMs: seconds(shape.commandTimeoutSeconds, smtp.commandTimeoutSeconds, standard.commandTimeoutMs),
    dataTimeoutMs: seconds(shape.dataTimeoutSeconds, smtp.dataTimeoutSeconds, standard.dataTimeoutMs),
    sessionTimeoutMs: seconds(shape.sessionTimeoutSeconds, smtp.sessionTimeoutSeconds, standard.sessionTimeoutMs),
  };
}

export function imapLimits({ imap }: Pick<ClusterSettings, 'imap'>): ImapLimits {
  const { maxAppendBytes, idleKeepAliveSeconds, autoLogoutSeconds, maxMessagesPerCommand } = imap;
  return {
    ...defaultImapLimits,
    grammar: { ...defaultImapLimits.grammar, maxMessageBytes: maxAppendBytes },
    keepAliveMs: idleKeepAliveSeconds * 1000,
    idleTimeoutMs: autoLogoutSeconds * 1000,
    maxMessagesPerCommand,
  };
}

export function pop3Limits({ pop3 }: Pick<ClusterSettings, 'pop3'>): Pop3Limits {
  return { ...defaultPop3Limits, idleTimeoutMs: pop3.autoLogoutSeconds * 1000, marksSeen: pop3.marksSeen };
}
