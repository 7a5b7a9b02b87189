/** Logs in at a relay (RFC 4954): the best mechanism that both sides have, its exchange in base64, and the server's own proof where there is one. */

import { type SaslClient, SaslClientError } from '../../sasl/client/contract.js';
import { chooseMechanism, createSaslClient, tlsClientChannelBinding } from '../../sasl/client/index.js';
import type { ParsedReply } from '../grammar/reply.js';
import { type ConnectOptions, SmtpConnectError } from './contract.js';
import { type ReadyConnection, refused } from './ready.js';

/** RFC 4954 4: a command line that would be longer carries no initial response; it follows after a 334. */
const maxCommandBytes = 510;
/** No mechanism needs more. */
const maxSteps = 8;

/** Throws SmtpConnectError of stage `auth`, or ConnectionLost. */
export async function logIn(connection: ReadyConnection, options: ConnectOptions): Promise<void> {
  const { wire, capabilities, tls, timeouts } = connection;
  const auth = options.auth!;
  const fail = (enhanced: string, text: string) => new SmtpConnectError('auth', 'temporary', 0, enhanced, text, tls);
  if (!tls.used && !options.authWithoutTls) throw fail('4.7.11', 'The login is not sent without TLS');
  const socket = wire.tlsSocket;
  const channelBinding = socket && tlsClientChannelBinding(socket);
  const { mechanisms } = auth;
  const offered = (capabilities.get('AUTH') ?? '')
    .toUpperCase()
    .split(/[ =]+/)
    .filter((name) => name !== '' && (!mechanisms || mechanisms.includes(name)));
  const command = async (line: string): Promise<ParsedReply> => {
    await wire.write(`${line}\r\n`, timeouts.commandMs);
    return wire.read(timeouts.commandMs);
  };
  const host = options.hostname ?? options.address;
  const attempt = async (names: readonly string[]): Promise<ParsedReply> => {
    const mechanism = chooseMechanism(names, auth, { isSecure: tls.used || options.authWithoutTls === true, channelBinding });
    if (!mechanism) throw fail('4.7.4', `The peer offers no way to log in that fits (${names.join(', ') || 'none'})`);
    try {
      const client = createSaslClient(mechanism, auth, { channelBinding, host, port: options.port, service: 'smtp', offered });
      const reply = await exchange(client, command);
      // Whoever says yes without having proved that it knows the password is not the relay.
      if (reply.code === 235 && !client.isComplete) throw fail('4.7.8', 'The peer accepted the login before it was finished');
      return reply;
    } catch (error) {
      if (!(error instanceof SaslClientError)) throw error;
      throw fail('4.7.8', `${mechanism}: ${error.message}`);
    }
  };
  let reply = await attempt(offered);
  // Many servers announce mechanisms for which they have no secret of this account. Under TLS the plain ones show it to nobody else.
  const plain = offered.filter((name) => name === 'PLAIN' || name === 'LOGIN');
  const isHidden = chooseMechanism(offered, auth, { isSecure: false, channelBinding }) !== undefined;
  if (reply.code >= 500 && isHidden && tls.used && plain.length > 0) reply = await attempt(plain);
  if (reply.code !== 235) throw refused('auth', reply, tls);
}

/** The reply that ends the exchange. After an error of the mechanism the connection is to be dropped. */
async function exchange(client: SaslClient, command: (line: string) => Promise<ParsedReply>): Promise<ParsedReply> {
  const start = `AUTH ${client.mechanism}`;
  const initial = client.initial && (client.initial.length === 0 ? '=' : client.initial.toString('base64'));
  const isTogether = initial !== undefined && start.length + 1 + initial.length <= maxCommandBytes;
  let reply = await command(isTogether ? `${start} ${initial}` : start);
  if (reply.code === 334 && initial !== undefined && !isTogether) reply = await command(initial === '=' ? '' : initial);
  let refusal: SaslClientError | undefined;
  for (let steps = 0; reply.code === 334 && steps < maxSteps; steps++) {
    let response: Buffer;
    try {
      response = await client.step(Buffer.from(reply.lines.join(''), 'base64'));
    } catch (error) {
      if (!(error instanceof SaslClientError)) throw error;
      refusal = error;
      // RFC 4954 4: the client cancels; the answer is a 501.
      reply = await command('*');
      break;
    }
    reply = await command(response.toString('base64'));
  }
  if (refusal) throw refusal;
  return reply;
}
