/**
 * Access control lists of mailboxes (RFC 4314): who may do what with a mailbox that belongs to somebody else. Pure; what is stored of it is one value per
 * mailbox, and `sharing.ts` reads and writes it.
 */
import { packValue, unpackValue } from './records.js';
import {
  type AclChange,
  type AclEntry,
  type AclIdentifier,
  allRights,
  everyone,
  granteeEveryone,
  type Right,
} from './sharing-contract.js';

const format = 1;

export function encodeAcl(entries: readonly AclEntry[]): Buffer {
  return packValue([format, ...entries.flatMap(({ identifier, rights }) => [identifier, rights.join('')])]);
}

export function decodeAcl(value: Buffer | undefined): AclEntry[] {
  if (!value) return [];
  const items = unpackValue(value, 'access control list') as string[];
  const entries: AclEntry[] = [];
  for (let at = 1; at + 1 < items.length; at += 2) entries.push({ identifier: items[at]!, rights: rightsOf(items[at + 1]!) });
  return entries;
}

/** The rights of these letters, in order; letters that are no rights are passed over. */
export function rightsOf(letters: string): Right[] {
  return allRights.filter((right) => letters.includes(right));
}

/** The list after a change; `undefined` where it stays as it is. */
export function changedAcl(
  entries: readonly AclEntry[],
  identifier: AclIdentifier,
  change: AclChange,
): readonly AclEntry[] | undefined {
  const before = entries.find((entry) => entry.identifier === identifier)?.rights ?? [];
  const after = allRights.filter((right) => {
    const named = change.rights.includes(right);
    if (change.mode === 'replace') return named;
    return change.mode === 'add' ? named || before.includes(right) : before.includes(right) && !named;
  });
  if (after.join('') === before.join('')) return undefined;
  if (after.length === 0) return entries.filter((entry) => entry.identifier !== identifier);
  if (before.length === 0) return [...entries, { identifier, rights: after }];
  return entries.map((entry) => (entry.identifier === identifier ? { identifier, rights: after } : entry));
}

/** What the list gives to somebody who is all of `identifiers` (without `-`). */
export function effectiveRights(entries: readonly AclEntry[], identifiers: ReadonlySet<AclIdentifier>): Set<Right> {
  const rights = new Set<Right>();
  for (const entry of entries) if (identifiers.has(entry.identifier)) for (const right of entry.rights) rights.add(right);
  for (const { identifier, rights: taken } of entries) {
    if (identifier.startsWith('-') && identifiers.has(identifier.slice(1))) for (const right of taken) rights.delete(right);
  }
  return rights;
}

/** All that an account is, with its groups. */
export function identifiersOf(accountId: string, groupIds: readonly string[]): Set<AclIdentifier> {
  return new Set([`user:${accountId}`, ...groupIds.map((id) => `group:${id}`), ...everyone]);
}

/** Under whose name the grant is noted, so that it is found from the other side; `undefined` for what gives nothing. */
export function granteeOf(identifier: AclIdentifier): string | undefined {
  if (identifier.startsWith('-')) return undefined;
  if ((everyone as readonly string[]).includes(identifier)) return granteeEveryone;
  return identifier.slice(identifier.indexOf(':') + 1);
}
