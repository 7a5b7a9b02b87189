/**
 * A message body on its way from the socket to the handler's sink, for DATA and BDAT alike: size limit, back-pressure, failure at any
 * point, and the final replies. Once it has failed, what still comes is dropped and the failure is the final reply.
 */
import type { ChunkDecoder } from '../grammar/content-decoder.js';
import { type Reply, reply } from '../grammar/reply.js';
import { localError, type SessionCore, type Transfer } from './core.js';
import type { MaybePromise, MessageSink } from './handler.js';
import { messagesTotal } from './metrics.js';

export const tooLarge = (maxMessageBytes: number) => reply(552, '5.3.4', `The message is larger than ${maxMessageBytes} octets`);
export const bareLineEnd = reply(550, '5.6.11', 'The message has a CR or LF that is not part of a CR LF');
export const nulOctet = reply(554, '5.6.0', 'The message has NUL octets in it');

export class MessageTransfer implements Transfer {
  sizeBytes = 0;
  normalised = false;
  failure: Reply | undefined;
  chunkDecoder: ChunkDecoder | undefined;
  #sink: MessageSink | undefined;

  constructor(
    private readonly session: SessionCore,
    sink: MessageSink,
  ) {
    this.#sink = sink;
  }

  write(content: Buffer): MaybePromise<void> {
    const sink = this.#sink;
    if (!sink) return undefined;
    this.sizeBytes += content.length;
    if (this.sizeBytes > this.session.limits.maxMessageBytes) return this.fail(tooLarge(this.session.limits.maxMessageBytes));
    try {
      return sink.write(content)?.catch((error: unknown) => this.#writeFailed(error));
    } catch (error) {
      return this.#writeFailed(error);
    }
  }

  #writeFailed(error: unknown) {
    this.session.logger.error({ err: error }, 'the message sink failed');
    this.fail(localError);
  }

  fail(answer: Reply) {
    this.failure ??= answer;
    const text = typeof answer.text === 'string' ? answer.text : answer.text.join(' ');
    this.abandon(text);
  }

  abandon(reason: string): boolean {
    const sink = this.#sink;
    if (!sink) return false;
    this.#sink = undefined;
    const failed = (error: unknown) => this.session.logger.error({ err: error }, 'aborting a message failed');
    try {
      sink.abort(reason)?.catch(failed);
    } catch (error) {
      failed(error);
    }
    return true;
  }

  complete() {
    const { session } = this;
    const sink = this.#sink;
    this.#sink = undefined;
    session.content = undefined;
    if (!sink) return this.#answer(this.failure ?? localError);
    session.run(
      'finish',
      () => sink.finish({ sizeBytes: this.sizeBytes, normalised: this.normalised }),
      (answers) => this.#answer(answers),
      { failed: () => this.#answer(localError), orphaned: (answers) => this.#afterDisconnect(answers) },
    );
  }

  /** RFC 2033 4.2: with LMTP one reply per accepted recipient, else one. */
  #answer(answers: Reply | Reply[]) {
    const { session } = this;
    const count = session.mode === 'lmtp' ? session.recipients.length : 1;
    let accepted = false;
    session.transfer = undefined;
    session.endTransaction(this.failure === undefined);
    for (let i = 0; i < count; i++) {
      const answer = (Array.isArray(answers) ? answers[i] : answers) ?? localError;
      accepted ||= answer.code < 400;
      messagesTotal.inc({
        mode: session.mode,
        result: answer.code < 400 ? 'accepted' : answer.code < 500 ? 'deferred' : 'rejected',
      });
      if (answer.code >= 400) session.refuse('data', answer);
      else session.send(answer);
    }
    if (accepted) session.messageCount++;
    session.afterTransaction();
  }

  /** The client will send the message again: it was durable before it could be told. Worth a line for whoever looks for a double. */
  #afterDisconnect(answers: Reply | Reply[]) {
    const accepted = (Array.isArray(answers) ? answers : [answers]).some((answer) => answer.code < 400);
    if (accepted) this.session.logger.warn('a message was accepted, but the client left before it could be told');
    messagesTotal.inc({ mode: this.session.mode, result: accepted ? 'accepted' : 'lost' });
  }
}
