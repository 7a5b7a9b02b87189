/** The room's public face: POP3 sessions on connections that somebody else accepts. */
export { Pop3Session } from './session.js';
export { defaultPop3Limits, type Pop3Connection, type Pop3Limits, type Pop3Services } from './types.js';
