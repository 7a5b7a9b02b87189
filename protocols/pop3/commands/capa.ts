/** CAPA (RFC 2449 section 5): exactly what works in the present state. */
import type { SessionContext } from '../context.js';
import { sent } from '../replies.js';
import { anyState, type Command } from './command.js';

export function capabilities(context: SessionContext): string[] {
  const list = ['TOP', 'UIDL', 'RESP-CODES', 'AUTH-RESP-CODE', 'PIPELINING', 'EXPIRE NEVER', 'UTF8 USER', 'LANG'];
  if (context.offersUser) list.push('USER');
  const { mechanisms } = context;
  if (mechanisms.length > 0) list.push(`SASL ${mechanisms.join(' ')}`);
  if (!context.isSecure && context.connection.startTls && context.state === 'authorization') list.push('STLS');
  list.push('IMPLEMENTATION Starling');
  return list;
}

export const capa: Command = {
  name: 'CAPA',
  states: anyState,
  run(context) {
    const lines = capabilities(context).map((line) => `${line}\r\n`);
    context.output.write(`+OK Capabilities follow\r\n${lines.join('')}.\r\n`);
    return sent;
  },
};
