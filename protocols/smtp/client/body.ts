/**
 * A message's content onto the wire, by DATA with dots stuffed or by BDAT in chunks (RFC 3030). What must be true: the octet that ends the
 * content leaves only after the whole body was read and had the size that was promised; a truncated message is never completed.
 */
import { DotStuffer } from '../grammar/content-encoder.js';
import type { ParsedReply } from '../grammar/reply.js';
import type { MessageBody } from './contract.js';
import type { ReadyConnection } from './ready.js';

/** Our own copy of the message can't be read, or is not what it was said to be. */
export class BodyUnreadable extends Error {
  override name = 'BodyUnreadable';
}

/** BDAT chunks are filled up to about this. One is in memory at a time. */
const chunkTargetBytes = 262_144;
/** Chunks sent ahead of their replies. */
const maxChunksAhead = 2;

/** Less than a socket takes before it asks for patience: goes with its end in one write. */
const maxJoinedBytes = 12_000;

const unreadable = (error: unknown) => new BodyUnreadable(`The message could not be read: ${(error as Error).message}`);
const wrongSize = ({ sizeBytes }: MessageBody) =>
  new BodyUnreadable(`The message has not the ${sizeBytes} octets that it should have`);

/** The whole body where it is small; undefined where it comes in pieces. */
async function wholeOf(body: MessageBody): Promise<Buffer | undefined> {
  if (!body.read) return undefined;
  let content: Buffer;
  try {
    content = await body.read();
  } catch (error) {
    throw unreadable(error);
  }
  if (content.length !== body.sizeBytes) throw wrongSize(body);
  return content;
}

/** The body's pieces; errors of the source become `BodyUnreadable`, and so does a wrong size. */
async function* pieces(body: MessageBody): AsyncGenerator<Buffer> {
  let sizeBytes = 0;
  const source = body.open()[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await source.next().catch((error: unknown) => {
        throw unreadable(error);
      });
      if (next.done) break;
      sizeBytes += next.value.length;
      if (sizeBytes > body.sizeBytes) break;
      if (next.value.length > 0) yield next.value;
    }
  } finally {
    await source.return?.();
  }
  if (sizeBytes !== body.sizeBytes) throw wrongSize(body);
}

/**
 * After a 354. `beforeEnd` is called just before the end of data is written. Answers what the peer said before that, if it did: the message was not
 * completed then.
 */
export async function sendByData(
  connection: ReadyConnection,
  body: MessageBody,
  beforeEnd: () => void,
): Promise<ParsedReply | undefined> {
  const { wire, timeouts } = connection;
  const stuffer = new DotStuffer();
  const whole = await wholeOf(body);
  if (whole && whole.length <= maxJoinedBytes) {
    const early = wire.tryRead();
    if (early) return early;
    const stuffed = stuffer.push(whole);
    beforeEnd();
    wire.writeNow(Buffer.concat([...stuffed, stuffer.end()]));
    return undefined;
  }
  // Corked, a small message with its end leaves in one packet.
  wire.cork();
  try {
    for await (const piece of whole ? [whole] : pieces(body)) {
      let taken = true;
      const early = wire.tryRead();
      if (early) return early;
      for (const stuffed of stuffer.push(piece)) taken = wire.writeNow(stuffed);
      if (taken) continue;
      wire.uncork();
      await wire.drained(timeouts.dataBlockMs);
      wire.cork();
    }
    const early = wire.tryRead();
    if (early) return early;
    beforeEnd();
    wire.writeNow(stuffer.end());
    return undefined;
  } finally {
    wire.uncork();
  }
}

/**
 * By BDAT. Returns the reply of a refused chunk (or one that nobody asked for), or undefined once the last one was written: its reply is the caller's to read. All
 * other replies are read before the last chunk leaves, so nothing can be outstanding but that.
 */
export async function sendByChunks(
  connection: ReadyConnection,
  body: MessageBody,
  pipelining: boolean,
  beforeEnd: () => void,
): Promise<ParsedReply | undefined> {
  const { wire, timeouts } = connection;
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  let ahead = 0;
  const write = (last: boolean) => {
    const command = `BDAT ${waitingBytes}${last ? ' LAST' : ''}\r\n`;
    if (waitingBytes <= maxJoinedBytes) {
      wire.writeNow(Buffer.concat([Buffer.from(command), ...waiting]));
      waiting = [];
      waitingBytes = 0;
      return;
    }
    wire.cork();
    try {
      wire.writeNow(command);
      for (const piece of waiting) wire.writeNow(piece);
    } finally {
      wire.uncork();
    }
    waiting = [];
    waitingBytes = 0;
  };
  const settle = async (atMost: number) => {
    for (; ahead > atMost; ahead--) {
      const reply = await wire.read(timeouts.dataTerminationMs);
      if (reply.code < 200 || reply.code > 299) return reply;
    }
    return undefined;
  };
  const whole = await wholeOf(body);
  for await (const piece of whole ? [whole] : pieces(body)) {
    if (waitingBytes >= chunkTargetBytes) {
      write(false);
      ahead++;
      await wire.drained(timeouts.dataBlockMs);
      const refused = await settle(pipelining ? maxChunksAhead : 0);
      if (refused) return giveUp(connection, refused, ahead - 1);
    }
    waiting.push(piece);
    waitingBytes += piece.length;
  }
  const refused = await settle(0);
  if (refused) return giveUp(connection, refused, ahead - 1);
  // An answer too many would pass for the one to the last chunk.
  const early = wire.tryRead();
  if (early) return giveUp(connection, early, 1);
  beforeEnd();
  write(true);
  return undefined;
}

/** Chunks on their way will be answered, too; nobody will wait for that. */
function giveUp(connection: ReadyConnection, refused: ParsedReply, outstanding: number): ParsedReply {
  if (outstanding > 0) connection.wire.destroy();
  return refused;
}
