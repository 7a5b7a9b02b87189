/** DATA (RFC 5321 4.1.1.4): the content up to CRLF.CRLF. */
import { DataDecoder } from '../../grammar/content-decoder.js';
import { type Reply, reply } from '../../grammar/reply.js';
import { type ContentConsumer, localError, type SessionCore, type Transfer } from '../core.js';
import type { MessageSink } from '../handler.js';
import { bareLineEnd, MessageTransfer, nulOctet } from '../transfer.js';
import { noArgument } from './plain.js';

const goAhead: Reply = { code: 354, text: 'Send the message, end it with CR LF . CR LF' };

/** What must hold before a body may come, for DATA and BDAT; undefined when it does. */
export function bodyOutOfOrder(session: SessionCore): Reply | undefined {
  if (!session.mail) return reply(503, '5.5.1', 'Say MAIL first');
  if (session.recipients.length > 0) return undefined;
  if (session.recipientAttempts === 0) return reply(503, '5.5.1', 'Say RCPT first');
  // RFC 5321 3.3 and RFC 2920 3.1: a pipelining client learns here that no recipient was left. RFC 2033 4.2 wants another code.
  return reply(session.mode === 'lmtp' ? 503 : 554, '5.5.1', 'No valid recipients');
}

/** Nobody keeps the message: a reply that says otherwise would lose it. */
function refusal(session: SessionCore, answer: Reply): Reply {
  if (answer.code >= 400) return answer;
  session.logger.error({ code: answer.code }, 'a message was neither taken nor refused');
  return localError;
}

/** Asks the handler for a sink; `taken` runs once it has one, `refused` with the reply that it gave instead. */
export function openSink(session: SessionCore, taken: (transfer: Transfer) => void, refused: (answer: Reply) => void): void {
  session.run<MessageSink | Reply>(
    'data',
    () => session.handler.data(session, { mail: session.mail!, recipients: session.recipients }),
    (answer) => {
      if ('code' in answer) return refused(refusal(session, answer));
      session.transfer = new MessageTransfer(session, answer);
      session.markBodyStart();
      taken(session.transfer);
    },
    {
      failed: () => refused(localError),
      orphaned: (answer) => {
        if (!('code' in answer)) new MessageTransfer(session, answer).abandon('the connection was lost');
      },
    },
  );
}

class DataConsumer implements ContentConsumer {
  readonly #decoder: DataDecoder;

  constructor(
    private readonly session: SessionCore,
    private readonly transfer: Transfer,
  ) {
    this.#decoder = new DataDecoder({ bareLineEnds: session.limits.bareLineEnds, nul: session.limits.nul });
  }

  consume(input: Buffer, from: number): number {
    const decoder = this.#decoder;
    const next = decoder.push(input, from);
    if (decoder.refused) this.transfer.fail(decoder.nul ? nulOctet : bareLineEnd);
    const wait = decoder.content && this.transfer.write(decoder.content);
    this.transfer.normalised = decoder.normalised;
    if (wait)
      this.session.run(
        'write',
        () => wait,
        () => this.#ended(),
      );
    else this.#ended();
    return next;
  }

  #ended() {
    if (this.#decoder.ended) this.transfer.complete();
  }
}

export function data(session: SessionCore, argument: string) {
  if (argument !== '') return session.protocolError('data', noArgument);
  const order = bodyOutOfOrder(session);
  if (order) return session.protocolError('data', order);
  if (session.transfer)
    return session.protocolError('data', reply(503, '5.5.1', 'The message has begun with BDAT and must end with it'));
  // RFC 3030 3: binary content can't be framed by a dot.
  if (session.mail!.parameters.body === 'BINARYMIME') {
    return session.protocolError('data', reply(503, '5.5.1', 'BODY=BINARYMIME needs BDAT'));
  }
  openSink(
    session,
    (transfer) => {
      session.content = new DataConsumer(session, transfer);
      session.send(goAhead);
    },
    (answer) => {
      session.endTransaction(false);
      session.refuse('data', answer);
      session.afterTransaction();
    },
  );
}
