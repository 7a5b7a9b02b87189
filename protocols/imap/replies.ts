/** Tagged replies, and errors of the stores as replies (RFC 5530 response codes). */
import { BlobMissing } from '../../store/blobs/contract.js';
import { KvError } from '../../store/kv/contract.js';
import { MailError, type MailErrorCode } from '../../store/mail/contract.js';
import { ImapSyntaxError } from './grammar/limits.js';

export interface Reply {
  status: 'OK' | 'NO' | 'BAD';
  /** Response code without brackets. */
  code?: string;
  text: string;
  /** The command has answered itself. */
  isSent?: true;
  /** The command has removed messages: that is told whatever the client wants to hear of otherwise. */
  hasRemoved?: true;
}

export function ok(text: string, code?: string): Reply {
  return { status: 'OK', text, code };
}

export function no(text: string, code?: string): Reply {
  return { status: 'NO', text, code };
}

export function bad(text: string, code?: string): Reply {
  return { status: 'BAD', text, code };
}

/** RFC 9586 3.1: what a message number gets once UIDONLY is enabled. */
export const uidRequired: Reply = bad('Message numbers are not allowed after UIDONLY', 'UIDREQUIRED');

/** A command that can't be done, thrown from wherever that is found out. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  constructor(readonly reply: Reply) {
    super(reply.text);
  }
}

const mailReplies: Record<MailErrorCode, { text: string; code: string }> = {
  'no-mailbox': { text: 'No such mailbox', code: 'NONEXISTENT' },
  'mailbox-exists': { text: 'Mailbox exists already', code: 'ALREADYEXISTS' },
  'bad-name': { text: 'Mailbox name not allowed', code: 'CANNOT' },
  'has-children': { text: 'Mailbox has children', code: 'HASCHILDREN' },
  'not-allowed': { text: 'Not allowed', code: 'CANNOT' },
  'too-many': { text: 'A limit was reached', code: 'LIMIT' },
  'over-quota': { text: 'Quota exceeded', code: 'OVERQUOTA' },
  'no-message': { text: 'The message is gone', code: 'EXPUNGEISSUED' },
};

/** The reply for an error; undefined for one that is our own fault and must be logged. */
export function replyOfError(error: unknown): Reply | undefined {
  if (error instanceof Refusal) return error.reply;
  if (error instanceof ImapSyntaxError) return { status: error.status, text: error.message, code: error.responseCode };
  if (error instanceof MailError) {
    const { text, code } = mailReplies[error.code];
    return no(
      error.code === 'too-many' || error.code === 'bad-name' || error.code === 'not-allowed' ? sentence(error.message) : text,
      code,
    );
  }
  if (error instanceof KvError) {
    if (error.reason === 'no-space') return no('The store is full', 'OVERQUOTA');
    if (error.code === 'too-large') return no('Too large for the store', 'LIMIT');
    return no('The store is unavailable, try again later', 'UNAVAILABLE');
  }
  if (error instanceof BlobMissing) return no('The message is gone', 'EXPUNGEISSUED');
  return undefined;
}

/** Text of ours that is safe in a response line. */
export function sentence(text: string): string {
  const plain = text.replace(/[^\x20-\x7e]+/g, '?').slice(0, 200);
  return plain === '' ? 'Failed' : plain.charAt(0).toUpperCase() + plain.slice(1);
}
