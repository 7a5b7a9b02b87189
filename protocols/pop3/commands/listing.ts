/** STAT, LIST and UIDL (RFC 1939 sections 5 and 7). */
import { yieldEventLoop } from '../../imap/context.js';
import type { SessionContext } from '../context.js';
import { words } from '../grammar/command.js';
import { err, ok, type Reply, sent } from '../replies.js';
import { afterLogin, type Command } from './command.js';

/** Lines that are written before others get a turn. */
const linesPerTurn = 2_000;

export const stat: Command = {
  name: 'STAT',
  states: afterLogin,
  run(context) {
    const { count, bytes } = context.maildrop.left;
    return ok(`${count} ${bytes}`);
  },
};

function listing(name: string, fact: (context: SessionContext, at: number) => string | number): Command {
  return {
    name,
    states: afterLogin,
    run(context, rest) {
      const [number, more] = words(rest);
      if (more !== undefined) return err('Too many arguments');
      if (number === undefined) return all(context, fact);
      const at = context.messageAt(number);
      return ok(`${at + 1} ${fact(context, at)}`);
    },
  };
}

async function all(context: SessionContext, fact: (context: SessionContext, at: number) => string | number): Promise<Reply> {
  const { maildrop, output } = context;
  const { count, bytes } = maildrop.left;
  output.write(`+OK ${count} messages (${bytes} octets)\r\n`);
  for (let at = 0; at < maildrop.size; at++) {
    if (!maildrop.isDeleted(at)) output.write(`${at + 1} ${fact(context, at)}\r\n`);
    if (at % linesPerTurn === linesPerTurn - 1) {
      await output.ready();
      await yieldEventLoop();
    }
  }
  output.write('.\r\n');
  return sent;
}

export const list = listing('LIST', ({ maildrop }, at) => maildrop.sizeBytes(at));
export const uidl = listing('UIDL', ({ maildrop }, at) => maildrop.uniqueId(at));
