/** Messages as the full-text index takes them: their bytes as far as text is in them, the texts by field, and the language. */
import { counter, type Logger } from '../../../ops/telemetry/index.js';
import {
  decodeSummary,
  type MessageSummary,
  SummaryFormatError,
  searchTexts,
  searchTextsOfSummary,
  summarize,
  textEnd,
} from '../../../protocols/message/index.js';
import { BlobCorrupt, BlobMissing, type BlobStore } from '../../../store/blobs/contract.js';
import type { AccountId, EmailId, Message } from '../../../store/mail/contract.js';
import type { OpenMailStore } from '../../../store/mail/index.js';
import type { StemLanguage } from '../../../store/search/analysis/contract.js';
import { detectLanguage } from '../../../store/search/analysis/index.js';
import type { SearchDocument } from '../../../store/search/contract.js';

/** `result`: whole; partial (too long); unreadable (damaged, only its summary is indexed). */
const documentsTotal = counter('starling_search_documents_total', 'Messages read for the full-text index.', ['result']);
const bytesTotal = counter('starling_search_read_bytes_total', 'Bytes of messages read for the full-text index.');

export interface DocumentSettings {
  /** Text of one message's body that is indexed, in characters. */
  maxBodyChars: number;
  /** Languages whose words are reduced to stems. */
  languages: readonly StemLanguage[];
}

export interface DocumentDependencies {
  mail: Pick<OpenMailStore, 'messages' | 'summaries'>;
  blobs: Pick<BlobStore, 'read'>;
  logger: Logger;
  settings: () => DocumentSettings;
  /** Awaited between pieces of work. */
  pause: (chars?: number) => Promise<void>;
}

/** The documents of these messages, one after another; those that are gone are left out. Throws KvError. */
export async function* documentsOf(
  dependencies: DocumentDependencies,
  accountId: AccountId,
  ids: readonly EmailId[],
): AsyncGenerator<SearchDocument> {
  const { mail } = dependencies;
  const [messages, summaries] = await Promise.all([mail.messages(accountId, ids), mail.summaries(accountId, ids)]);
  for (const [place, message] of messages.entries()) {
    if (message) yield await documentOf(dependencies, accountId, message, summaries[place]);
  }
}

async function documentOf(
  dependencies: DocumentDependencies,
  accountId: AccountId,
  message: Message,
  record: Buffer | undefined,
): Promise<SearchDocument> {
  const { logger, settings, pause } = dependencies;
  const { maxBodyChars, languages } = settings();
  const emailId = message.id;
  let summary: MessageSummary | undefined;
  let isRead = false;
  try {
    summary = record && readSummary(record);
    const { bytes, parsed } = await readMessage(dependencies.blobs, message, summary, maxBodyChars);
    summary = parsed;
    isRead = true;
    bytesTotal.inc(bytes.length);
    const { texts, partial } = await searchTexts(bytes, parsed, { maxBodyChars, pause });
    await pause(texts.reduce((sum, { text }) => sum + text.length, 0));
    const language = await languageOf(parsed, texts, languages);
    documentsTotal.inc({ result: partial.length > 0 ? 'partial' : 'whole' });
    return { emailId, texts, ...(partial.length > 0 && { isPartial: partial }), ...(language && { language }) };
  } catch (error) {
    // One message that our own code fails on must not keep all others of the account out of the index.
    if (!isUnreadable(error) && !(isRead && error instanceof TypeError)) throw error;
    // It stays a candidate of every search: whoever searches finds out what can be read of it then.
    logger.warn({ err: error, accountId, emailId }, 'a message can not be read for the full-text index');
    documentsTotal.inc({ result: 'unreadable' });
    return { emailId, texts: summary ? searchTextsOfSummary(summary) : [], isPartial: true };
  }
}

/** Damage of this one message; everything else concerns the store or ourselves. */
const isUnreadable = (error: unknown) =>
  error instanceof BlobMissing ||
  error instanceof BlobCorrupt ||
  error instanceof SummaryFormatError ||
  error instanceof RangeError;

/** Undefined where a summary is damaged or of another release: the message is parsed again then. */
function readSummary(record: Buffer): MessageSummary | undefined {
  try {
    return decodeSummary(record);
  } catch (error) {
    if (error instanceof SummaryFormatError) return undefined;
    throw error;
  }
}

async function readMessage(
  blobs: Pick<BlobStore, 'read'>,
  message: Message,
  summary: MessageSummary | undefined,
  maxBodyChars: number,
): Promise<{ bytes: Buffer; parsed: MessageSummary }> {
  if (!summary) {
    const bytes = await blobs.read(message.blobId);
    return { bytes, parsed: summarize(bytes) };
  }
  // Attachments come last, mostly: what is behind the last text is not even read.
  const end = Math.min(message.sizeBytes, textEnd(summary.structure, maxBodyChars));
  const bytes = await blobs.read(message.blobId, end < message.sizeBytes ? { end } : undefined);
  return { bytes, parsed: summary };
}

async function languageOf(
  { preview }: MessageSummary,
  texts: SearchDocument['texts'],
  languages: readonly StemLanguage[],
): Promise<StemLanguage | undefined> {
  if (languages.length === 0) return undefined;
  const subject = texts.find(({ field }) => field === 'subject')?.text ?? '';
  const language = await detectLanguage(`${subject}\n${preview ?? ''}`);
  return language && languages.includes(language) ? language : undefined;
}
