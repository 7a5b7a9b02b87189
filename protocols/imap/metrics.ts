/** What IMAP sessions count. Labels are bounded: command names come from the command table only. */
import { counter, gauge, histogram } from '../../ops/telemetry/index.js';

export const sessionsOpen = gauge('starling_imap_sessions', 'IMAP sessions that are open.');
export const sessionsTotal = counter('starling_imap_sessions_total', 'IMAP sessions that were opened.');
/** result: ok, no, bad, or aborted (the client left). */
export const commandsTotal = counter('starling_imap_commands_total', 'IMAP commands that ended, by tagged result.', [
  'command',
  'result',
]);
export const commandSeconds = histogram(
  'starling_imap_command_seconds',
  'Time from a complete IMAP command to its tagged response.',
  ['command'],
);
/** result: ok, limit (too many connections of the user), or the reason of the failure. */
export const authTotal = counter('starling_imap_auth_total', 'IMAP logins, by mechanism and result.', ['mechanism', 'result']);
