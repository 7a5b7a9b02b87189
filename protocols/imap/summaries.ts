/** Stored summaries, read and decoded; one that this version can't read is made anew from the message. */
import type { EmailId } from '../../store/mail/contract.js';
import { decodeSummary, type MessageSummary, SummaryFormatError, summarize } from '../message/index.js';
import type { SessionContext } from './context.js';

/** In the order asked; undefined for messages that are gone. */
export async function readSummaries(context: SessionContext, ids: readonly EmailId[]): Promise<(MessageSummary | undefined)[]> {
  const records = await context.services.mail.summaries(context.accountId, ids);
  const summaries: (MessageSummary | undefined)[] = [];
  for (const [i, record] of records.entries()) {
    if (!record) summaries.push(undefined);
    else {
      try {
        summaries.push(decodeSummary(record));
      } catch (error) {
        if (!(error instanceof SummaryFormatError)) throw error;
        context.logger.warn({ err: error, emailId: ids[i] }, 'a summary is made anew');
        summaries.push(await summarizeAgain(context, ids[i]!));
      }
    }
  }
  return summaries;
}

async function summarizeAgain(context: SessionContext, id: EmailId): Promise<MessageSummary | undefined> {
  const [message] = await context.services.mail.messages(context.accountId, [id]);
  return message && summarize(await context.services.blobs.read(message.blobId));
}
