/** The public face of IMAP. */
export { ImapSession } from './session.js';
export {
  defaultImapLimits,
  type ImapAccounts,
  type ImapConnection,
  type ImapDirectory,
  type ImapLimits,
  type ImapPrincipal,
  type ImapServices,
  type ImapSharing,
  type ServerAnnotations,
} from './types.js';
