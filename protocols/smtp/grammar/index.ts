export {
  afterKeyword,
  type CommandLine,
  decodeLine,
  isGreetingName,
  parseBdat,
  parseCapabilities,
  splitCommand,
} from './command.js';
export { ChunkDecoder, type ContentRules, DataDecoder } from './content-decoder.js';
export { DotStuffer } from './content-encoder.js';
export {
  type BodyType,
  decodeUtf8Address,
  decodeXtext,
  encodeUtf8Address,
  encodeXtext,
  formatRecipientParameters,
  type MailParameters,
  type NotifyCondition,
  parseMailParameters,
  parseRecipientParameters,
  type RecipientParameters,
} from './parameters.js';
export {
  addressOfLiteral,
  domainOf,
  formatLocalPart,
  isAddressLiteral,
  isDomainName,
  type ParsedMailbox,
  type ParsedPath,
  type PathProblem,
  parseMailbox,
  parsePath,
} from './path.js';
export { formatReply, type ParsedReply, type Reply, ReplyReader, ReplySyntaxError, reply } from './reply.js';
