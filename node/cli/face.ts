/** What the command line adds to operations: who asks, checks that only it can make, and results as people want to see them. */
import { userInfo } from 'node:os';
import type { OperationArguments } from '../api/operation.js';

/** What the command line adds to an operation. */
export interface OperationFace {
  /** Made from the arguments as typed, in this process. */
  prepare?(args: OperationArguments): OperationArguments;
  /** For people; JSON is for programs. */
  print?(result: unknown, args: OperationArguments): string;
}

/** The name of the user who runs this command, for the history. */
function operator(): string {
  try {
    const { username } = userInfo();
    const { SUDO_USER: behind } = process.env;
    return behind !== undefined && behind !== '' && behind !== username ? `${username} (${behind})` : username;
  } catch {
    // A user id without a name, as in containers.
    return `uid ${process.getuid?.() ?? '?'}`;
  }
}

/** The arguments with who asks, as histories tell it. */
export const signed = (args: OperationArguments): OperationArguments => ({ ...args, flags: { ...args.flags, who: operator() } });
