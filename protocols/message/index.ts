/** The room's public face: mail messages as bytes, offsets and text. */
export {
  type Address,
  formatAddressSpec,
  type GroupAddress,
  type MailboxAddress,
  mailboxesOf,
  parseAddressList,
  parseMailboxAddress,
} from './addresses.js';
export { withoutNulParts } from './binary-parts.js';
export {
  type BodyTree,
  type BuildOptions,
  buildMessage,
  composeBody,
  type ExtraHeader,
  type MessageDraft,
  type PartOptions,
  reportBody,
  type SimpleBody,
  type StatusField,
} from './build.js';
export {
  addressHeader,
  type BuildAddress,
  type BuildErrorCode,
  type BuildGroup,
  type BuildMailbox,
  dateHeader,
  MessageBuildError,
  messageIdHeader,
  parameterizedHeader,
  structuredHeader,
  textHeader,
} from './build-headers.js';
export { decodeCharset, isKnownCharset, rawToUnicode, unicodeToRaw } from './charset.js';
export { formatDate, type ParsedDate, parseDate } from './dates.js';
export { decodeEncodedWords, encodeWords } from './encoded-words.js';
export { parseMessageIds, toEnvelopeAddresses } from './envelope.js';
export {
  decodeHeaderText,
  findHeader,
  findHeaders,
  type HeaderField,
  type HeaderRange,
  headerFields,
  headerFieldsSubset,
  unfold,
} from './headers.js';
export { htmlToText } from './html-text.js';
export { formatBodyStructure } from './imap-body-structure.js';
export { formatEnvelope } from './imap-envelope.js';
export { formatNstring, formatString, rawUtf8 } from './imap-strings.js';
export { defaultMessageLimits, type MessageLimits, previewMaxChars } from './limits.js';
export { missingLineEndBytes } from './line-ends.js';
export { encodeExtendedValue, type ParameterizedValue, parseParameterized } from './parameters.js';
export { parseMessage } from './parse.js';
export {
  addressText,
  bodyText,
  headerText,
  type SearchTextField,
  type SearchTextOptions,
  type SearchTexts,
  searchTexts,
  searchTextsOfSummary,
  subjectText,
  textEnd,
} from './search-text.js';
export {
  type ByteRange,
  findPart,
  messageAt,
  parseSectionPath,
  resolveSection,
  type SectionPath,
  type SectionText,
} from './sections.js';
export {
  decodeSummary,
  decodeSummaryHead,
  encodeSummary,
  type FiledSummary,
  type Rendering,
  renderingOf,
  SummaryFormatError,
  type SummaryHead,
  summarize,
  summarizeWithin,
} from './summary.js';
export { decodeBody, decodeText, fileNameOf, isAttachment, mainTextPart, plainText, preview, textParts } from './text.js';
export {
  createTransferDecoder,
  decodeBase64,
  decodeQuotedPrintable,
  decodeTransfer,
  encodeBase64,
  encodeQuotedPrintable,
  isKnownTransferEncoding,
  type TransferDecoder,
} from './transfer-encoding.js';
export type { EmbeddedMessage, Envelope, EnvelopeAddress, MessageIds, MessageStructure, MessageSummary, Part } from './types.js';
