/** COPY and MOVE (RFC 9051 6.4.7, 6.4.8) with COPYUID. */
import { type CopyResult, MailError } from '../../../store/mail/contract.js';
import { decodeSummary, SummaryFormatError } from '../../message/index.js';
import { type Command, withMailbox } from '../command.js';
import type { Invocation, SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { formatNumbers, readSequenceSet } from '../grammar/sequence-set.js';
import { refusedByLimit, repliedWithinLimit, withinLimit } from '../message-limit.js';
import { flagRights, type MailboxPlace, requirePlace, requireRights } from '../places.js';
import { no, ok, Refusal, type Reply } from '../replies.js';

interface Transfer {
  uids: number[];
  /** The last of them, where more were named than one MOVE may work on. */
  lowestUid: number | undefined;
  target: MailboxPlace;
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
  // RFC 6851 section 4.3: what is moved away is marked and expunged.
  if (name === 'MOVE') requireRights(selected.place.rights, 't', 'e');
  const announced = context.resolve(set, byUid);
  const uids = [...announced].filter((uid) => selected.index.get(uid) !== undefined);
  // RFC 2180 4.4: a numbered message that is gone fails the whole COPY; an unknown UID is passed over.
  if (!byUid && uids.length < announced.length) return no('Some of the messages no longer exist', 'EXPUNGEISSUED');
  const target = requirePlace(await context.find(path), 'TRYCREATE', 'i');
  const limited = withinLimit(context, uids);
  // RFC 9738 3.1: COPY is for all or none.
  if (limited.lowestUid !== undefined && name === 'COPY') throw refusedByLimit(context, limited.lowestUid);
  return { uids: limited.uids, lowestUid: limited.lowestUid, target };
}

/** Within one account, or from one to another; flags go along as the rights in the target allow (RFC 4314 section 4). */
async function transferTo(context: SessionContext, { uids, target }: Transfer, leavesSource: boolean): Promise<CopyResult> {
  const { mail } = context.services;
  const { accountId, mailbox } = context.requireSelected();
  const carries = flagRights(target.rights);
  const isOtherAccount = accountId !== target.accountId;
  const limitBytes = leavesSource && !isOtherAccount ? undefined : await context.quotaLimitBytes(target.accountId);
  const quota = limitBytes === undefined ? {} : { quotaLimitBytes: limitBytes };
  if (isOtherAccount) {
    if (limitBytes !== undefined) await requireRoom(context, uids, target, limitBytes);
    const to = { accountId: target.accountId, mailboxId: target.mailbox.id };
    const options = { ...quota, carries, messageIdsOf, leavesSource };
    return mail.copyBetween({ accountId, mailboxId: mailbox.id }, uids, to, options);
  }
  const options = { ...quota, dropsDeleted: !carries.deleted };
  if (leavesSource) return mail.move(accountId, mailbox.id, uids, target.mailbox.id, options);
  return mail.copy(accountId, mailbox.id, uids, target.mailbox.id, options);
}

/** A transfer between accounts goes in parts: what does not fit is refused before the first of them is there (RFC 9051 6.4.7: all or nothing). */
async function requireRoom(
  context: SessionContext,
  uids: readonly number[],
  { accountId }: MailboxPlace,
  limitBytes: number,
): Promise<void> {
  const { index } = context.requireSelected();
  const wantedBytes = uids.reduce((sum, uid) => sum + (index.get(uid)?.sizeBytes ?? 0), 0);
  const { usedBytes } = await context.services.mail.usage(accountId);
  if (usedBytes + wantedBytes > limitBytes) throw new Refusal(no('Quota exceeded', 'OVERQUOTA'));
}

/** For the threads of another account. Of a summary that can't be read, nothing: the message is a thread of its own. */
function messageIdsOf(summary: Buffer): readonly string[] {
  try {
    const { own, inReplyTo, references } = decodeSummary(summary).messageIds;
    return [...(own === undefined ? [] : [own]), ...inReplyTo, ...references];
  } catch (error) {
    if (error instanceof SummaryFormatError) return [];
    throw error;
  }
}

function copyUid(result: CopyResult): string | undefined {
  if (result.pairs.length === 0) return undefined;
  const sources = formatNumbers(result.pairs.map(({ sourceUid }) => sourceUid));
  const targets = formatNumbers(result.pairs.map(({ targetUid }) => targetUid));
  return `COPYUID ${result.uidValidity} ${sources} ${targets}`;
}

/** What arrives in the target is no news to this client. */
function markOwn(context: SessionContext, { target }: Transfer, { pairs }: CopyResult): void {
  const uids = pairs.map(({ targetUid }) => targetUid);
  context.markOwn(target.accountId, target.mailbox.id, uids);
}

export const copy: Command = {
  name: 'COPY',
  states: withMailbox,
  takesUid: true,
  async run(context, cursor, invocation) {
    const transfer = await prepare(context, cursor, invocation, 'COPY');
    if ('status' in transfer) return transfer;
    if (transfer.uids.length === 0) return ok('COPY completed, nothing to copy');
    const result = await orTryCreate(transferTo(context, transfer, false));
    markOwn(context, transfer, result);
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
    const result = await orTryCreate(transferTo(context, transfer, true));
    markOwn(context, transfer, result);
    const code = copyUid(result);
    // RFC 9051 6.4.8: COPYUID comes untagged, in front of the EXPUNGE responses.
    if (code) context.untagged(`OK [${code}] Moved`);
    return { ...repliedWithinLimit(context, ok('MOVE completed'), transfer.lowestUid), hasRemoved: true };
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
