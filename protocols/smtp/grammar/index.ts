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
  type EhloKeyword,
  type ExtensionSet,
  ehloKeywords,
  extensionSet,
  hasExtension,
  type SmtpExtension,
  smtpExtensions,
  withExtension,
} from './extensions.js';
export {
  type BodyType,
  formatDateTime,
  formatMailParameters,
  formatRecipientParameters,
  type MailParameterRules,
  type MailParameters,
  type NotifyCondition,
  parseDateTime,
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
export {
  type ProxiedAttribute,
  type ProxiedAttributes,
  parseProxiedAttributes,
  xclientAttributes,
  xforwardAttributes,
} from './proxied.js';
export { formatReply, type ParsedReply, type Reply, ReplyReader, ReplySyntaxError, reply } from './reply.js';
export { decodeUtf8Address, decodeXtext, encodeUtf8Address, encodeXtext } from './xtext.js';
