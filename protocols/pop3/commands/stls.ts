/** STLS (RFC 2595 section 4). What was sent before the handshake is dropped, so that nobody can put commands into the secure part. */
import { ConnectionClosed } from '../../imap/output.js';
import { err, sent } from '../replies.js';
import { beforeLogin, type Command } from './command.js';

export const stls: Command = {
  name: 'STLS',
  states: beforeLogin,
  async run(context) {
    const { startTls } = context.connection;
    if (context.isSecure) return err('TLS is on already');
    if (!startTls) return err('TLS is not available here');
    context.input.detach();
    context.output.write('+OK Begin TLS negotiation\r\n');
    context.output.flush();
    try {
      const socket = await startTls();
      context.isSecure = true;
      context.user = undefined;
      context.output.replaceSocket(socket);
      context.input.replaceSocket(socket);
    } catch (error) {
      context.logger.debug({ err: error }, 'TLS handshake failed');
      throw new ConnectionClosed();
    }
    return sent;
  },
};
