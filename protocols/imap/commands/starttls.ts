/** STARTTLS (RFC 9051 6.2.1). Everything that was sent before the handshake is dropped, so that nobody can put commands into the secure part. */
import { type Command, notLoggedIn } from '../command.js';
import { ConnectionClosed } from '../output.js';
import { bad, ok } from '../replies.js';

export const starttls: Command = {
  name: 'STARTTLS',
  states: notLoggedIn,
  async run(context, cursor, { tag }) {
    cursor.end();
    const { startTls } = context.connection;
    // RFC 4978 section 3: a layer of compression can't be put under TLS afterwards (UNAUTHENTICATE leaves it in place).
    if (context.isSecure || context.isCompressed || !startTls) return bad('TLS is not available here');
    context.input.detach();
    context.output.write(`${tag} OK Begin TLS negotiation now\r\n`);
    context.output.flush();
    try {
      const socket = await startTls();
      context.isSecure = true;
      context.output.replaceSocket(socket);
      context.input.replaceSocket(socket);
    } catch (error) {
      context.logger.debug({ err: error }, 'TLS handshake failed');
      throw new ConnectionClosed();
    }
    return { ...ok(''), isSent: true };
  },
};
