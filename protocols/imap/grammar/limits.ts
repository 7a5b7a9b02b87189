/**
 * What the grammar refuses before it costs anything (TRAPS 36). All in bytes or counts of one command; sessions hand in their own.
 */
export interface GrammarLimits {
  /** Text of one command, all its lines together, literals apart. */
  maxLineBytes: number;
  /** All literals of one command together, those of APPEND messages apart. */
  maxLiteralBytes: number;
  /** One message of APPEND. */
  maxMessageBytes: number;
  /** A refused non-synchronising literal up to this size is read and thrown away; above it the connection ends. */
  maxSkippedBytes: number;
  /** Nested parentheses, NOTs and ORs. */
  maxDepth: number;
  /** Search keys, fetch items, flags, header names, ranges: whatever repeats in one command. */
  maxArguments: number;
}

export const defaultGrammarLimits: GrammarLimits = {
  // RFC 2683 3.2.1.5 asks for at least 8,000; clients send UID lists of several times that.
  maxLineBytes: 65_536,
  maxLiteralBytes: 131_072,
  maxMessageBytes: 52_428_800,
  maxSkippedBytes: 268_435_456,
  maxDepth: 32,
  maxArguments: 8_192,
};

/** A command that breaks the grammar. Becomes `BAD`, or with `status` NO, with the response code if there is one. */
export class ImapSyntaxError extends Error {
  override readonly name = 'ImapSyntaxError';
  constructor(
    message: string,
    /** Response code without brackets. */
    readonly responseCode?: string,
    readonly status: 'BAD' | 'NO' = 'BAD',
  ) {
    super(message);
  }
}
