/** What POP3 sessions count. Labels are bounded: command names come from the command table only. */
import { counter, gauge, histogram } from '../../ops/telemetry/index.js';

export const sessionsOpen = gauge('starling_pop3_sessions', 'POP3 sessions that are open.');
export const sessionsTotal = counter('starling_pop3_sessions_total', 'POP3 sessions that were opened.');
/** result: ok, err, or aborted (the client left). */
export const commandsTotal = counter('starling_pop3_commands_total', 'POP3 commands that ended, by result.', [
  'command',
  'result',
]);
export const commandSeconds = histogram('starling_pop3_command_seconds', 'Time from a POP3 command to the end of its response.', [
  'command',
]);
/** result: ok, in-use (another session has the maildrop), or the reason of the failure. */
export const authTotal = counter('starling_pop3_auth_total', 'POP3 logins, by mechanism and result.', ['mechanism', 'result']);
export const removedTotal = counter('starling_pop3_removed_messages_total', 'Messages that POP3 sessions removed at QUIT.');
