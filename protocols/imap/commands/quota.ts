/**
 * GETQUOTA and GETQUOTAROOT (RFC 9208). The one resource is STORAGE. An account's quota root is named by its address; the root of somebody else's mailbox is its
 * owner's. SETQUOTA is for administrators, who have other ways, and is not offered.
 */
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import { utf8Text } from '../grammar/cursor.js';
import { formatAstring, rawUtf8 } from '../grammar/format.js';
import { requirePlace } from '../places.js';
import { no, ok } from '../replies.js';

/** RFC 9208 5.1: STORAGE is counted in units of 1024 octets. */
const unitBytes = 1_024;

async function rootName(context: SessionContext, accountId: string): Promise<string | undefined> {
  const known = await context.services.sharing?.directory.byId(accountId);
  return known?.address ?? (accountId === context.accountId ? context.account!.login : undefined);
}

/** The QUOTA response; an account without a limit has a root without resources. */
async function quotaResponse(context: SessionContext, accountId: string, root: string): Promise<string> {
  const limitBytes = await context.quotaLimitBytes(accountId);
  const name = formatAstring(rawUtf8(root));
  if (limitBytes === undefined) return `QUOTA ${name} ()`;
  const { usedBytes } = await context.services.mail.usage(accountId);
  return `QUOTA ${name} (STORAGE ${Math.ceil(usedBytes / unitBytes)} ${Math.floor(limitBytes / unitBytes)})`;
}

export const getQuotaRoot: Command = {
  name: 'GETQUOTAROOT',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const latin1 = cursor.astring();
    cursor.end();
    const place = requirePlace(await context.find(context.path(latin1)), 'NONEXISTENT', 'r');
    const root = await rootName(context, place.accountId);
    const mailbox = context.mailboxText(place.path);
    if (root === undefined) {
      context.untagged(`QUOTAROOT ${mailbox}`);
      return ok('GETQUOTAROOT completed');
    }
    context.untagged(`QUOTAROOT ${mailbox} ${formatAstring(rawUtf8(root))}`);
    // How full somebody else's account is concerns those who may put something there.
    if (place.rights.has('i')) context.untagged(await quotaResponse(context, place.accountId, root));
    return ok('GETQUOTAROOT completed');
  },
};

export const getQuota: Command = {
  name: 'GETQUOTA',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const root = utf8Text(cursor.astring());
    cursor.end();
    const accountId = await accountOfRoot(context, root);
    if (accountId === undefined) return no('No such quota root', 'NONEXISTENT');
    context.untagged(await quotaResponse(context, accountId, root));
    return ok('GETQUOTA completed');
  },
};

/** The own root, and those of whoever has shared a mailbox that this user may put messages into. */
async function accountOfRoot(context: SessionContext, root: string): Promise<string | undefined> {
  if (root.toLowerCase() === (await rootName(context, context.accountId))?.toLowerCase()) return context.accountId;
  const owner = await context.services.sharing?.directory.byAddress(root);
  if (!owner || !context.shared) return undefined;
  const places = await context.shared.visible();
  return places.some(({ accountId, rights }) => accountId === owner.id && rights.has('r') && rights.has('i'))
    ? owner.id
    : undefined;
}
