/**
 * The parser's limits (units in the names). Reaching one never fails a message: what lies beyond is left out of the structure.
 */

export interface MessageLimits {
  /** Entities open at once: each multipart, part and embedded message counts one. */
  maxDepth: number;
  /** Entities in the whole tree. */
  maxParts: number;
  /** Bytes of one entity's header that are interpreted; the header's end is found however long it is. */
  maxHeaderBytes: number;
  /** Fields of one entity's header that are interpreted. */
  maxHeaderFields: number;
  /** Bytes of a boundary parameter. RFC 2046 allows 70; mail in the field goes well beyond. */
  maxBoundaryBytes: number;
  /** Bytes kept of one unstructured envelope field, and of Content-ID, -Description, -Location. */
  maxTextFieldBytes: number;
  /** Bytes read of one address field; the list ends with the last address that fits. */
  maxAddressFieldBytes: number;
  /** Addresses kept per field, group markers included. */
  maxAddresses: number;
  /** Parameters kept per Content-Type or Content-Disposition. */
  maxParameters: number;
  /** Characters kept of one parameter's value. */
  maxParameterChars: number;
  /** Identifiers kept of References and In-Reply-To each: the first and the last ones. */
  maxMessageIds: number;
}

export const defaultMessageLimits: Readonly<MessageLimits> = {
  maxDepth: 64,
  maxParts: 2000,
  maxHeaderBytes: 256 * 1024,
  maxHeaderFields: 2000,
  maxBoundaryBytes: 1024,
  maxTextFieldBytes: 8 * 1024,
  maxAddressFieldBytes: 64 * 1024,
  maxAddresses: 1000,
  maxParameters: 64,
  maxParameterChars: 2048,
  maxMessageIds: 100,
};

/** The same for messages whose summary has grown too large to be stored; see `summarizeWithin`. */
export const tightMessageLimits: Readonly<MessageLimits> = {
  ...defaultMessageLimits,
  maxDepth: 32,
  maxParts: 200,
  maxTextFieldBytes: 1024,
  maxAddressFieldBytes: 8 * 1024,
  maxAddresses: 100,
  maxParameters: 16,
  maxParameterChars: 256,
  maxMessageIds: 30,
};

/** The last resort: the root entity, little of its header, and nothing else. */
export const minimalMessageLimits: Readonly<MessageLimits> = {
  ...tightMessageLimits,
  maxDepth: 1,
  maxParts: 1,
  maxTextFieldBytes: 512,
  maxAddressFieldBytes: 512,
  maxAddresses: 8,
  maxParameters: 8,
  maxParameterChars: 128,
  maxMessageIds: 4,
};

/** UTF-16 units of a preview; neither IMAP PREVIEW (RFC 8970) nor JMAP (RFC 8621 4.1.4) allows more than 256 characters. */
export const previewMaxChars = 256;
