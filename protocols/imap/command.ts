/** The shape that all commands share. */
import type { Invocation, SessionContext, SessionState } from './context.js';
import type { Cursor } from './grammar/cursor.js';
import type { Reply } from './replies.js';

export interface Command {
  /** Upper case; label in metrics. */
  name: string;
  states: readonly SessionState[];
  /** Also understood with the UID prefix. */
  takesUid?: boolean;
  /** Only with the UID prefix or without, what may be announced at its end: RFC 9051 7.5.1 keeps EXPUNGE out of FETCH, STORE and SEARCH. */
  holdsExpunges?: boolean;
  /** Reads the store for news before the tagged response, whether a notice came or not. */
  looksForNews?: boolean;
  /**
   * Reads its arguments from `cursor` (which stands behind the command's name) and runs. Untagged responses are written on the way, the
   * answer is the tagged one. What is thrown becomes NO or BAD.
   */
  run(context: SessionContext, cursor: Cursor, invocation: Invocation): Promise<Reply> | Reply;
}

export const anyState: readonly SessionState[] = ['not-authenticated', 'authenticated', 'selected'];
export const loggedIn: readonly SessionState[] = ['authenticated', 'selected'];
export const notLoggedIn: readonly SessionState[] = ['not-authenticated'];
export const withMailbox: readonly SessionState[] = ['selected'];
