/** SETACL, DELETEACL, GETACL, LISTRIGHTS, MYRIGHTS (RFC 4314): who may use a mailbox, and how. */
import { granteeOf } from '../../../store/mail/acl.js';
import { type AclChange, type AclIdentifier, allRights, everyone, type Right } from '../../../store/mail/contract.js';
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import { type Cursor, utf8Text } from '../grammar/cursor.js';
import { formatAstring, rawUtf8 } from '../grammar/format.js';
import { type MailboxPlace, requirePlace, requireRights } from '../places.js';
import { no, ok, Refusal } from '../replies.js';

/** RFC 4314 2.1.1: what clients of RFC 2086 know by these letters. */
const obsoleteRights: Readonly<Record<string, readonly Right[]>> = { c: ['k', 'x'], d: ['t', 'e'] };

/** Letters of rights, with those of RFC 2086 added where they say something (RFC 4314 2.1.1). */
export function formatRights(rights: ReadonlySet<Right> | readonly Right[]): string {
  const set = new Set(rights);
  const letters: string[] = allRights.filter((right) => set.has(right));
  for (const [letter, meaning] of Object.entries(obsoleteRights))
    if (meaning.some((right) => set.has(right))) letters.push(letter);
  return letters.length > 0 ? letters.join('') : '""';
}

async function readPlace(context: SessionContext, cursor: Cursor): Promise<MailboxPlace | undefined> {
  cursor.space();
  return context.find(context.path(cursor.astring()));
}

/** A name as the client wrote it. */
interface NamedIdentifier {
  text: string;
  isNegative: boolean;
  /** Without the sign. */
  name: string;
}

function readIdentifier(cursor: Cursor): NamedIdentifier {
  cursor.space();
  const text = utf8Text(cursor.astring());
  const isNegative = text.startsWith('-');
  const name = isNegative ? text.slice(1) : text;
  if (name === '' || /[\x00-\x1f\x7f]/.test(name)) cursor.fail('Bad identifier');
  return { text, isNegative, name };
}

/** `+rights`, `-rights` or `rights`. RFC 4314 2.1: letters that the server does not know are BAD. */
function readRights(cursor: Cursor): AclChange {
  cursor.space();
  const text = cursor.astring();
  const mode = text.startsWith('+') ? 'add' : text.startsWith('-') ? 'remove' : 'replace';
  const rights = new Set<Right>();
  for (const letter of mode === 'replace' ? text : text.slice(1)) {
    const meant = obsoleteRights[letter] ?? allRights.filter((right) => right === letter);
    if (meant.length === 0) cursor.fail(`Unknown right ${letter}`);
    for (const right of meant) rights.add(right);
  }
  return { mode, rights: [...rights] };
}

/** Whom a name means: `owner` for whoever holds the mailbox, who has all rights whatever is said; undefined for nobody. */
async function identify(
  context: SessionContext,
  place: MailboxPlace,
  name: string,
): Promise<AclIdentifier | 'owner' | undefined> {
  const lower = name.toLowerCase();
  if (lower === 'owner') return 'owner';
  if ((everyone as readonly string[]).includes(lower)) return lower;
  const isGroup = name.startsWith('$');
  const found = await context.services.sharing?.directory.byAddress(isGroup ? name.slice(1) : name);
  if (!found || (isGroup && found.kind !== 'group')) return undefined;
  if (found.id === place.accountId) return 'owner';
  return `${found.kind === 'group' ? 'group' : 'user'}:${found.id}`;
}

/** The name of a stored identifier; undefined for who is gone. */
async function nameOf(context: SessionContext, identifier: AclIdentifier): Promise<string | undefined> {
  const sign = identifier.startsWith('-') ? '-' : '';
  const bare = identifier.slice(sign.length);
  if (!bare.includes(':')) return identifier;
  const known = await context.services.sharing?.directory.byId(granteeOf(bare)!);
  if (!known) return undefined;
  return `${sign}${known.kind === 'group' ? '$' : ''}${known.address}`;
}

async function ownersName(context: SessionContext, place: MailboxPlace): Promise<string> {
  const known = await context.services.sharing?.directory.byId(place.accountId);
  if (!known) return 'owner';
  return `${known.kind === 'group' ? '$' : ''}${known.address}`;
}

async function change(
  context: SessionContext,
  found: MailboxPlace | undefined,
  { name, isNegative }: NamedIdentifier,
  wanted: AclChange,
): Promise<void> {
  const place = requirePlace(found, 'NONEXISTENT', 'a');
  const identifier = await identify(context, place, name);
  if (identifier === undefined) throw new Refusal(no('No such user or group'));
  if (identifier === 'owner') {
    const keepsAll =
      !isNegative && wanted.mode !== 'remove' && (wanted.mode === 'add' || wanted.rights.length === allRights.length);
    if (keepsAll) return;
    throw new Refusal(no('The owner keeps all rights', 'CANNOT'));
  }
  const givesToAll = granteeOf(identifier) !== undefined && !identifier.includes(':') && !isNegative;
  if (givesToAll && !context.services.sharing?.withEveryone && wanted.mode !== 'remove' && wanted.rights.length > 0)
    throw new Refusal(no('Sharing with everybody is turned off here', 'NOPERM'));
  await context.services.mail.sharing.changeAcl(
    place.accountId,
    place.mailbox.id,
    isNegative ? `-${identifier}` : identifier,
    wanted,
  );
}

export const setAcl: Command = {
  name: 'SETACL',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const path = context.path(cursor.astring());
    const identifier = readIdentifier(cursor);
    const wanted = readRights(cursor);
    cursor.end();
    await change(context, await context.find(path), identifier, wanted);
    return ok('SETACL completed');
  },
};

export const deleteAcl: Command = {
  name: 'DELETEACL',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const path = context.path(cursor.astring());
    const identifier = readIdentifier(cursor);
    cursor.end();
    await change(context, await context.find(path), identifier, { mode: 'replace', rights: [] });
    return ok('DELETEACL completed');
  },
};

export const getAcl: Command = {
  name: 'GETACL',
  states: loggedIn,
  async run(context, cursor) {
    const found = await readPlace(context, cursor);
    cursor.end();
    const place = requirePlace(found, 'NONEXISTENT', 'a');
    const parts = [`${formatAstring(rawUtf8(await ownersName(context, place)))} ${formatRights(allRights)}`];
    const [acl] = await context.services.mail.sharing.acls(place.accountId, [place.mailbox.id]);
    for (const { identifier, rights } of acl!) {
      const name = await nameOf(context, identifier);
      if (name !== undefined) parts.push(`${formatAstring(rawUtf8(name))} ${formatRights(rights)}`);
    }
    context.untagged(`ACL ${context.mailboxText(place.path)} ${parts.join(' ')}`);
    return ok('GETACL completed');
  },
};

export const listRights: Command = {
  name: 'LISTRIGHTS',
  states: loggedIn,
  async run(context, cursor) {
    const found = await readPlace(context, cursor);
    const { text, name, isNegative } = readIdentifier(cursor);
    cursor.end();
    const place = requirePlace(found, 'NONEXISTENT', 'a');
    const identifier = await identify(context, place, name);
    if (identifier === undefined) return no('No such user or group');
    const head = `LISTRIGHTS ${context.mailboxText(place.path)} ${formatAstring(rawUtf8(text))}`;
    // RFC 4314 3.7: first what is always granted, then what may be, each on its own.
    if (identifier === 'owner' && !isNegative) context.untagged(`${head} ${formatRights(allRights)}`);
    else if (identifier === 'owner') context.untagged(`${head} ""`);
    else context.untagged(`${head} "" ${[...allRights, ...Object.keys(obsoleteRights)].join(' ')}`);
    return ok('LISTRIGHTS completed');
  },
};

/** RFC 4314 section 4: any of these lets one see one's rights. */
const rightsToSeeOwn: readonly Right[] = ['l', 'r', 'i', 'k', 'x', 'a'];

export const myRights: Command = {
  name: 'MYRIGHTS',
  states: loggedIn,
  async run(context, cursor) {
    const found = await readPlace(context, cursor);
    cursor.end();
    const place = requirePlace(found, 'NONEXISTENT');
    if (!rightsToSeeOwn.some((right) => place.rights.has(right))) requireRights(place.rights, 'l');
    context.untagged(`MYRIGHTS ${context.mailboxText(place.path)} ${formatRights(place.rights)}`);
    return ok('MYRIGHTS completed');
  },
};
