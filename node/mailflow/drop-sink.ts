/** Takes a message that nobody will read, and its client is not to know: all its recipients are spam traps, or a script throws it away. */
import { type Reply, reply } from '../../protocols/smtp/grammar/index.js';
import type { MessageSink, SessionInfo } from '../../protocols/smtp/server/handler.js';
import type { QueueId } from '../../store/queue/index.js';
import { messagesTotal } from './metrics.js';

export class DropSink implements MessageSink {
  constructor(
    private readonly session: SessionInfo,
    private readonly id: QueueId,
  ) {}

  write(): void {}

  finish({ sizeBytes }: { sizeBytes: number }): Reply {
    return dropped(this.session, this.id, sizeBytes);
  }

  abort(): void {}
}

/** Says what is said of a message that was queued. */
export function dropped({ logger }: Pick<SessionInfo, 'logger'>, queueId: QueueId, sizeBytes: number): Reply {
  messagesTotal.inc({ event: 'dropped' });
  logger.info({ queueId, sizeBytes }, 'message taken and thrown away');
  return reply(250, '2.0.0', `Ok: queued as ${queueId}`);
}
