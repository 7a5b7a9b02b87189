export type * from './handler.js';
export { defaultSmtpLimits, type SmtpLimits } from './limits.js';
export { SmtpSession, type SmtpSessionOptions } from './session.js';
export { transmissionType } from './transmission.js';
