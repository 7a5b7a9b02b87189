/** The way of a message as the settings have it. */
import { defaultMailflowSettings, type MailflowSettings } from '../mailflow/index.js';
import { live } from './live.js';
import type { NodeSettings } from './sections.js';

/** For a node of this name. Each message and each delivery reads it once. */
export function liveMailflowSettings(
  settings: Pick<NodeSettings, 'current' | 'opened'>,
  hostname: string,
): () => MailflowSettings {
  const defaults = defaultMailflowSettings(hostname);
  return live(settings, ({ smtp }) => {
    // Opened: the relay's password is among them.
    const outbound = settings.opened('outbound');
    return {
      ...defaults,
      senderMustMatch: smtp.mustMatchSender,
      fromFieldMustMatch: smtp.mustMatchFromField,
      smtpPort: outbound.port,
      relayHost: outbound.relay,
      retryDelaysSeconds: outbound.retryScheduleSeconds,
      delayReportAfterSeconds: outbound.delayNoticeAfterSeconds,
      messageLifetimeSeconds: outbound.expireAfterSeconds,
    };
  });
}
