/** COMPRESS (RFC 4978). Only after login: strangers get no compressor, and secrets of the login never stand beside text that others choose. */
import { type Command, loggedIn } from '../command.js';
import { DeflateConnection } from '../compression.js';
import { no, ok } from '../replies.js';

export const compress: Command = {
  name: 'COMPRESS',
  states: loggedIn,
  run(context, cursor, { tag }) {
    cursor.space();
    const algorithm = cursor.word();
    cursor.end();
    if (algorithm !== 'DEFLATE') return no('Only DEFLATE is known', 'CANNOT');
    if (context.isCompressed) return no('DEFLATE is active already', 'COMPRESSIONACTIVE');
    const { input, output } = context;
    output.write(`${tag} OK DEFLATE begins now\r\n`);
    output.flush();
    // Whatever stands behind the command is compressed.
    const unread = input.handOver();
    const stream = new DeflateConnection(output.socket, unread);
    output.replaceSocket(stream);
    input.replaceSocket(stream);
    context.isCompressed = true;
    return { ...ok(''), isSent: true };
  },
};
