/** The way of a message as the settings have it. */
import { defaultMailflowSettings, type MailflowSettings } from '../mailflow/index.js';
import { constantOf } from './accept.js';
import { live } from './live.js';
import { outboundSettings } from './outbound.js';
import { outcomeSettings } from './queue.js';
import { accept as acceptSchema } from './schemas/accept.js';
import { smtp as smtpSchema } from './schemas/smtp.js';
import type { NodeSettings } from './sections.js';

/** For a node of this name. Each message and each delivery reads it once. */
export function liveMailflowSettings(
  settings: Pick<NodeSettings, 'current' | 'opened'>,
  hostname: string,
): () => MailflowSettings {
  const defaults = defaultMailflowSettings(hostname);
  return live(settings, ({ smtp, accept, queue }) => {
    // Opened: the relay's password is among them.
    const outbound = settings.opened('outbound');
    return {
      ...defaults,
      // What depends on a session or message is for the stages to say (`accept.ts`).
      senderMustMatch: constantOf(smtpSchema.shape.mustMatchSender, smtp.mustMatchSender, true),
      fromFieldMustMatch: constantOf(smtpSchema.shape.mustMatchFromField, smtp.mustMatchFromField, true),
      maxReceivedFields: constantOf(
        acceptSchema.shape.data.unwrap().shape.maxReceivedFields,
        accept.data.maxReceivedFields,
        defaults.maxReceivedFields,
      ),
      smtpPort: outbound.port,
      relayHost: outbound.relay,
      retryDelaysSeconds: outbound.retryScheduleSeconds,
      delayReportAfterSeconds: outbound.delayNoticeAfterSeconds,
      messageLifetimeSeconds: outbound.expireAfterSeconds,
      maxConnectionsPerDomain: outbound.maxConnectionsPerDomain,
      maxHostsPerAttempt: outbound.maxHostsPerAttempt,
      outbound: outboundSettings(outbound),
      outcomes: outcomeSettings(queue),
    };
  });
}
