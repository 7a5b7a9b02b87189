/** Status lines, and errors of the stores as status lines with response codes (RFC 2449 section 8, RFC 3206). */
import { BlobCorrupt, BlobMissing } from '../../store/blobs/contract.js';
import { KvError } from '../../store/kv/contract.js';
import { MailError } from '../../store/mail/contract.js';
import { MaildropLockLost } from '../../store/mail/index.js';

export type ResponseCode = 'AUTH' | 'IN-USE' | 'LOGIN-DELAY' | 'SYS/TEMP' | 'SYS/PERM' | 'UTF8';

export interface Reply {
  isOk: boolean;
  code?: ResponseCode | undefined;
  text: string;
  /** The command has answered itself. */
  isSent?: true;
}

export function ok(text: string): Reply {
  return { isOk: true, text };
}

export function err(text: string, code?: ResponseCode): Reply {
  return { isOk: false, code, text };
}

/** The command has written its whole response. */
export const sent: Reply = { isOk: true, text: '', isSent: true };

/** A command that can't be done, thrown from wherever that is found out. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  constructor(readonly reply: Reply) {
    super(reply.text);
  }
}

/** With CRLF. */
export function formatReply({ isOk, code, text }: Reply): string {
  return `${isOk ? '+OK' : '-ERR'} ${code === undefined ? '' : `[${code}] `}${text}\r\n`;
}

/** The reply for an error; undefined for one that is our own fault and must be logged. */
export function replyOfError(error: unknown): Reply | undefined {
  if (error instanceof Refusal) return error.reply;
  if (error instanceof KvError) {
    if (error.reason === 'no-space') return err('The store is full', 'SYS/TEMP');
    return err('The store is unavailable, try again later', 'SYS/TEMP');
  }
  if (error instanceof MaildropLockLost) return err('Another session has taken over the maildrop', 'IN-USE');
  if (error instanceof BlobMissing) return err('The message is gone');
  if (error instanceof BlobCorrupt) return err('The message can not be read', 'SYS/PERM');
  if (error instanceof MailError) return err('The maildrop is gone', 'SYS/TEMP');
  return undefined;
}
