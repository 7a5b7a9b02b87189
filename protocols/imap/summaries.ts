/** Stored summaries, read and decoded; one that this version can't read is made anew from the message. */
import type { AccountId, EmailId } from '../../store/mail/contract.js';
import {
  decodeSummary,
  decodeSummaryHead,
  formatBodyStructure,
  formatEnvelope,
  type MessageSummary,
  type Rendering,
  renderingOf,
  SummaryFormatError,
  type SummaryHead,
  summarize,
} from '../message/index.js';
import type { SessionContext } from './context.js';

/** In the order asked; undefined for messages that are gone. */
export function readSummaries(
  context: SessionContext,
  accountId: AccountId,
  ids: readonly EmailId[],
): Promise<(MessageSummary | undefined)[]> {
  return readAll(context, accountId, ids, decodeSummary);
}

/** The same without structures, faster. */
export function readSummaryHeads(
  context: SessionContext,
  accountId: AccountId,
  ids: readonly EmailId[],
): Promise<(SummaryHead | undefined)[]> {
  return readAll(context, accountId, ids, decodeSummaryHead);
}

/** What ENVELOPE and BODYSTRUCTURE say; where records have it ready, they are not decoded. */
export async function readRenderings(
  context: SessionContext,
  accountId: AccountId,
  ids: readonly EmailId[],
): Promise<(Rendering | undefined)[]> {
  const found = await readAll<Rendering | MessageSummary>(
    context,
    accountId,
    ids,
    (record) => renderingOf(record) ?? decodeSummary(record),
  );
  return found.map((one) => (one && 'structure' in one ? renderingFrom(one) : one));
}

function renderingFrom({ envelope, structure }: MessageSummary): Rendering {
  return { envelope: formatEnvelope(envelope), bodyStructure: formatBodyStructure(structure, true) };
}

async function readAll<T>(
  context: SessionContext,
  accountId: AccountId,
  ids: readonly EmailId[],
  decode: (record: Buffer) => T,
): Promise<(T | MessageSummary | undefined)[]> {
  const records = await context.services.mail.summaries(accountId, ids);
  const summaries: (T | MessageSummary | undefined)[] = [];
  for (const [i, record] of records.entries()) {
    if (!record) summaries.push(undefined);
    else {
      try {
        summaries.push(decode(record));
      } catch (error) {
        if (!(error instanceof SummaryFormatError)) throw error;
        context.logger.warn({ err: error, emailId: ids[i] }, 'a summary is made anew');
        summaries.push(await summarizeAgain(context, accountId, ids[i]!));
      }
    }
  }
  return summaries;
}

async function summarizeAgain(context: SessionContext, accountId: AccountId, id: EmailId): Promise<MessageSummary | undefined> {
  const [message] = await context.services.mail.messages(accountId, [id]);
  return message && summarize(await context.services.blobs.read(message.blobId));
}
