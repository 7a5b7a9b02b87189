/** The public face of IMAP. */
export { ImapSession } from './session.js';
export {
  defaultImapLimits,
  type ImapAccounts,
  type ImapConnection,
  type ImapLimits,
  type ImapServices,
} from './types.js';
