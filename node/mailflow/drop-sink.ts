/** Takes a message that nobody will read: all its recipients are spam traps, and its client is not to know. */
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
    messagesTotal.inc({ event: 'dropped' });
    this.session.logger.info({ queueId: this.id, sizeBytes }, 'message for spam traps dropped');
    return reply(250, '2.0.0', `Ok: queued as ${this.id}`);
  }

  abort(): void {}
}
