/** What IMAP sessions know of other people: the directory's accounts and groups, and how the settings name their mailboxes. */
import type { ImapPrincipal, ImapServices } from '../protocols/imap/index.js';
import type { Directory, Principal } from '../store/directory/contract.js';
import type { Stores } from './stores.js';

/** As the settings are now; a session keeps it. */
export function imapSharing({
  directory,
  settings,
}: Pick<Stores, 'directory' | 'settings'>): Pick<ImapServices, 'sharing' | 'serverAnnotations'> {
  const { otherUsersName, groupsName, shareWithEveryone, serverComment, serverAdmin } = settings.current.imap;
  return {
    sharing: {
      directory: imapDirectory(directory),
      otherUsers: otherUsersName,
      // Two trees can't have one name.
      groups: groupsName === otherUsersName ? `${groupsName} (groups)` : groupsName,
      withEveryone: shareWithEveryone,
    },
    serverAnnotations: {
      ...(serverComment === '' ? {} : { comment: serverComment }),
      ...(serverAdmin === '' ? {} : { admin: serverAdmin }),
    },
  };
}

/** The part of the directory that sharing needs. */
export function imapDirectory(directory: Pick<Directory, 'principal' | 'principalById' | 'groupsOf'>) {
  return {
    byAddress: async (address: string) => shareable(await directory.principal(address)),
    byId: async (id: string) => shareable(await directory.principalById(id)),
    groupsOf: (accountId: string) => directory.groupsOf(accountId),
  };
}

/** Lists have no mailboxes, and nobody is a list. */
function shareable(found: Principal | undefined): ImapPrincipal | undefined {
  if (!found || found.kind === 'list') return undefined;
  const { id, kind, address } = found;
  return { id, kind, address };
}
