/** The shape that all commands share. */
import type { SessionContext, SessionState } from '../context.js';
import type { Reply } from '../replies.js';

export interface Command {
  /** Upper case; label in metrics. */
  name: string;
  states: readonly SessionState[];
  /** `rest`: what follows the keyword and its space, as it came. Answers the status line; what is thrown becomes `-ERR`. */
  run(context: SessionContext, rest: string): Promise<Reply> | Reply;
}

export const anyState: readonly SessionState[] = ['authorization', 'transaction'];
export const beforeLogin: readonly SessionState[] = ['authorization'];
export const afterLogin: readonly SessionState[] = ['transaction'];
