/** COPY and MOVE (RFC 9051 6.4.7, 6.4.8) with COPYUID. */
import { type CopyResult, MailError } from '../../../store/mail/contract.js';
import { type Command, withMailbox } from '../command.js';
import type { Invocation, SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { formatNumbers, readSequenceSet } from '../grammar/sequence-set.js';
import { no, ok, Refusal, type Reply } from '../replies.js';

interface Transfer {
  uids: number[];
  targetId: string;
}

/** Reads the arguments and finds the messages and the target; or the reply that ends it. */
async function prepare(context: SessionContext, cursor: Cursor, { byUid }: Invocation, name: string): Promise<Transfer | Reply> {
  cursor.space();
  const set = readSequenceSet(cursor);
  cursor.space();
  const path = context.path(cursor.astring());
  cursor.end();
  const selected = name === 'MOVE' ? context.requireWritable() : context.requireSelected();
  await context.refreshView();
  const announced = context.resolve(set, byUid);
  const uids = announced.filter((uid) => selected.index.get(uid) !== undefined);
  // RFC 2180 4.4: a numbered message that is gone fails the whole COPY; an unknown UID is passed over.
  if (!byUid && uids.length < announced.length) return no('Some of the messages no longer exist', 'EXPUNGEISSUED');
  const target = await context.services.mail.mailboxByPath(context.accountId, path);
  if (!target) return no('No such mailbox', 'TRYCREATE');
  return { uids, targetId: target.mailbox.id };
}

function copyUid(result: CopyResult): string | undefined {
  if (result.pairs.length === 0) return undefined;
  const sources = formatNumbers(result.pairs.map(({ sourceUid }) => sourceUid));
  const targets = formatNumbers(result.pairs.map(({ targetUid }) => targetUid));
  return `COPYUID ${result.uidValidity} ${sources} ${targets}`;
}

export const copy: Command = {
  name: 'COPY',
  states: withMailbox,
  takesUid: true,
  async run(context, cursor, invocation) {
    const transfer = await prepare(context, cursor, invocation, 'COPY');
    if ('status' in transfer) return transfer;
    if (transfer.uids.length === 0) return ok('COPY completed, nothing to copy');
    const quotaLimitBytes = await context.quotaLimitBytes();
    const from = context.requireSelected().mailbox.id;
    const result = await orTryCreate(
      context.services.mail.copy(
        context.accountId,
        from,
        transfer.uids,
        transfer.targetId,
        quotaLimitBytes === undefined ? {} : { quotaLimitBytes },
      ),
    );
    return ok('COPY completed', copyUid(result));
  },
};

export const move: Command = {
  name: 'MOVE',
  states: withMailbox,
  takesUid: true,
  looksForNews: true,
  async run(context, cursor, invocation) {
    const transfer = await prepare(context, cursor, invocation, 'MOVE');
    if ('status' in transfer) return transfer;
    if (transfer.uids.length === 0) return ok('MOVE completed, nothing to move');
    const from = context.requireSelected().mailbox.id;
    const result = await orTryCreate(context.services.mail.move(context.accountId, from, transfer.uids, transfer.targetId));
    const code = copyUid(result);
    // RFC 9051 6.4.8: COPYUID comes untagged, in front of the EXPUNGE responses.
    if (code) context.untagged(`OK [${code}] Moved`);
    return ok('MOVE completed');
  },
};

/** A target that was removed a moment ago is as missing as one that never was. */
async function orTryCreate(transfer: Promise<CopyResult>): Promise<CopyResult> {
  try {
    return await transfer;
  } catch (error) {
    if (error instanceof MailError && error.code === 'no-mailbox') throw new Refusal(no('No such mailbox', 'TRYCREATE'));
    throw error;
  }
}
