/** Setting up accounts, and what an account uses. */
import { changeAccount, type MailContext } from './context.js';
import { type AccountId, defaultMailboxes } from './contract.js';
import { newMailboxId } from './ids.js';
import { addMailbox } from './mailboxes.js';
import { decodeLogFloor, decodeState } from './records.js';
import { finishAccountRemoval } from './removal.js';

/** Makes state and default mailboxes of an account that has none; an account that was set up is left as its user made it. */
export async function ensureAccount(context: MailContext, accountId: AccountId): Promise<void> {
  const keys = context.keysOf(accountId);
  const [state, removal] = await context.kv.read((reads) => reads.getMany([keys.state, keys.removal('')]));
  if (state) return;
  if (removal) await finishAccountRemoval(context, accountId);
  const ids = defaultMailboxes.map(() => newMailboxId(context.random));
  await changeAccount(
    context,
    accountId,
    'ensure',
    async (account) => {
      if (account.exists) return;
      defaultMailboxes.forEach(({ name, role }, place) => {
        addMailbox(account, { id: ids[place]!, name, parentId: '', role, isSubscribed: true, sortOrder: 0 });
      });
    },
    { mayBeNew: true },
  );
}

export async function usage(
  context: MailContext,
  accountId: AccountId,
): Promise<{ usedBytes: number; messages: number; modseq: number }> {
  const keys = context.keysOf(accountId);
  const [state, floor] = await context.kv.read((reads) => reads.getMany([keys.state, keys.logFloor]));
  if (!state) return { usedBytes: 0, messages: 0, modseq: decodeLogFloor(floor).modseq };
  const { usedBytes, messages, modseq } = decodeState(state);
  return { usedBytes, messages, modseq };
}
