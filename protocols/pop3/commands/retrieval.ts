/** RETR and TOP (RFC 1939 sections 5 and 7): a message, or its beginning, streamed as the client takes it. */
import { ConnectionClosed } from '../../imap/output.js';
import type { SessionContext } from '../context.js';
import { parseNumber, words } from '../grammar/command.js';
import { DotStuffer, TopCut } from '../grammar/stuffing.js';
import { err, type Reply, sent } from '../replies.js';
import { afterLogin, type Command } from './command.js';

/** Messages up to this size are read in one piece. */
const maxWholeBytes = 262_144;
/** As much as TOP reads at once of a longer one: most headers are within. */
const topPieceBytes = 65_536;

export const retr: Command = {
  name: 'RETR',
  states: afterLogin,
  async run(context, rest) {
    const [number, more] = words(rest);
    if (more !== undefined) return err('Too many arguments');
    const at = context.messageAt(number);
    const reply = await give(context, at, undefined);
    if (reply.isOk) context.maildrop.markRetrieved(at);
    return reply;
  },
};

export const top: Command = {
  name: 'TOP',
  states: afterLogin,
  run(context, rest) {
    const [number, lines, more] = words(rest);
    const at = context.messageAt(number);
    const bodyLines = parseNumber(lines);
    if (bodyLines === undefined || more !== undefined) return err('TOP takes a message and a number of lines');
    return give(context, at, new TopCut(bodyLines));
  },
};

async function give(context: SessionContext, at: number, cut: TopCut | undefined): Promise<Reply> {
  const message = await context.maildrop.message(at);
  if (!message) return err('That message has been removed by another session');
  const { output } = context;
  const chunks = source(context, message, cut !== undefined);
  // Before the first byte of the answer a failure can still be told.
  let next = await chunks.next();
  output.write(cut ? '+OK Top of message follows\r\n' : `+OK ${context.maildrop.sizeBytes(at)} octets\r\n`);
  const stuffer = new DotStuffer();
  try {
    while (!next.done) {
      output.bytes(stuffer.push(cut ? cut.take(next.value) : next.value));
      if (cut?.isDone) break;
      await output.ready();
      next = await chunks.next();
    }
  } catch (error) {
    if (!(error instanceof ConnectionClosed)) context.logger.error({ err: error }, 'a message broke off in the middle');
    // In the middle of a message nothing can be said any more.
    throw new ConnectionClosed();
  } finally {
    // However it ends, the storage must get its file or request back.
    await chunks.return(undefined).catch((error: unknown) => context.logger.warn({ err: error }, 'a message was not closed'));
  }
  output.write(stuffer.end());
  return sent;
}

async function* source(
  context: SessionContext,
  { blobId, sizeBytes }: { blobId: string; sizeBytes: number },
  isTop: boolean,
): AsyncGenerator<Buffer, undefined> {
  const { blobs } = context.services;
  if (sizeBytes <= (isTop ? topPieceBytes : maxWholeBytes)) {
    yield await blobs.read(blobId);
    return;
  }
  if (!isTop) {
    yield* blobs.stream(blobId);
    return;
  }
  yield await blobs.read(blobId, { start: 0, end: topPieceBytes });
  yield* blobs.stream(blobId, { start: topPieceBytes });
}
