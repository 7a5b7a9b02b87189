/**
 * BDAT (RFC 3030 2): content in chunks of announced length. A refused chunk is read and dropped all the same, because the client may
 * have sent it along with the command.
 */
import { parseBdat } from '../../grammar/command.js';
import { ChunkDecoder } from '../../grammar/content-decoder.js';
import { type Reply, reply } from '../../grammar/reply.js';
import type { ContentConsumer, SessionCore, Transfer } from '../core.js';
import { offers } from '../offers.js';
import { bareLineEnd, nulOctet, tooLarge } from '../transfer.js';
import { bodyOutOfOrder, openSink } from './data.js';

/** Reads a chunk into the transfer. The decoder outlives the chunk: a CR LF may be cut by its end. */
class ChunkConsumer implements ContentConsumer {
  #remainingBytes: number;

  constructor(
    private readonly session: SessionCore,
    private readonly transfer: Transfer,
    private readonly decoder: ChunkDecoder,
    private readonly sizeBytes: number,
    private readonly last: boolean,
  ) {
    this.#remainingBytes = sizeBytes;
  }

  consume(input: Buffer, from: number): number {
    const end = Math.min(input.length, from + this.#remainingBytes);
    this.#remainingBytes -= end - from;
    this.decoder.push(input, from, end);
    this.#settle(this.decoder.content);
    return end;
  }

  /** For a chunk of no octets, which no input will ever complete. */
  finishEmpty() {
    this.#settle(undefined);
  }

  #settle(content: Buffer | undefined) {
    const over = this.#remainingBytes === 0;
    let wait = content && this.transfer.write(content);
    const held = over && this.last ? this.decoder.finish() : undefined;
    if (held) wait = wait ? wait.then(() => this.transfer.write(held)) : this.transfer.write(held);
    if (this.decoder.refused) this.transfer.fail(this.decoder.nul ? nulOctet : bareLineEnd);
    this.transfer.normalised = this.decoder.normalised;
    const next = () => {
      if (over) this.#chunkOver();
    };
    if (wait) this.session.run('write', () => wait, next);
    else next();
  }

  #chunkOver() {
    const { session, transfer } = this;
    if (this.last) return transfer.complete();
    session.content = undefined;
    if (!transfer.failure) return session.send(reply(250, '2.0.0', `${this.sizeBytes} octets received`));
    const { failure } = transfer;
    session.endTransaction(false);
    session.refuse('data', failure);
    session.afterTransaction();
  }
}

/** Reads a refused chunk and answers after it. */
class ChunkDropper implements ContentConsumer {
  constructor(
    private readonly remaining: { bytes: number },
    private readonly done: () => void,
  ) {}

  consume(input: Buffer, from: number): number {
    const end = Math.min(input.length, from + this.remaining.bytes);
    this.remaining.bytes -= end - from;
    if (this.remaining.bytes === 0) this.done();
    return end;
  }
}

/** Refuses: drops `sizeBytes` of input, then calls `answer`. A drain that waited for the chunk goes on. */
function drop(session: SessionCore, sizeBytes: number, answer: () => void) {
  const done = () => {
    session.content = undefined;
    answer();
    session.afterTransaction();
  };
  if (sizeBytes === 0) return done();
  // So much is not worth the time, and what follows it can't be found without reading it.
  if (sizeBytes > session.limits.maxDroppedChunkBytes) {
    answer();
    return session.replyAndClose(reply(421, '4.7.0', 'The chunk is too large to be read to its end'));
  }
  session.content = new ChunkDropper({ bytes: sizeBytes }, done);
}

export function bdat(session: SessionCore, argument: string) {
  const chunk = parseBdat(argument);
  // Where the chunk ends is unknown, and what it holds must never be read as commands.
  if (!chunk) return session.refuse('data', reply(501, '5.5.4', 'BDAT takes a size and perhaps LAST', true));
  const { sizeBytes, last } = chunk;
  const order = offers(session, 'CHUNKING') ? bodyOutOfOrder(session) : reply(502, '5.5.1', 'CHUNKING is not offered');
  if (order) return drop(session, sizeBytes, () => session.protocolError('data', order));
  const refuse = (answer: Reply) =>
    drop(session, sizeBytes, () => {
      // RFC 2033 4.2: the client waits for a reply for each recipient after the last chunk.
      const count = last && session.mode === 'lmtp' ? session.recipients.length : 1;
      session.endTransaction(false);
      for (let i = 0; i < count; i++) session.refuse('data', answer);
    });
  const { maxMessageBytes } = session.limits;
  if ((session.transfer?.sizeBytes ?? 0) + sizeBytes > maxMessageBytes) {
    session.transfer?.fail(tooLarge(maxMessageBytes));
    return refuse(tooLarge(maxMessageBytes));
  }
  if (session.transfer) return begin(session, session.transfer, sizeBytes, last);
  openSink(session, (transfer) => begin(session, transfer, sizeBytes, last), refuse);
}

function begin(session: SessionCore, transfer: Transfer, sizeBytes: number, last: boolean) {
  const binary = session.mail!.parameters.body === 'BINARYMIME';
  transfer.chunkDecoder ??= new ChunkDecoder(
    binary ? { bareLineEnds: 'allow', nul: 'allow' } : { bareLineEnds: session.limits.bareLineEnds, nul: session.limits.nul },
  );
  const consumer = new ChunkConsumer(session, transfer, transfer.chunkDecoder, sizeBytes, last);
  session.content = consumer;
  if (sizeBytes === 0) consumer.finishEmpty();
}
