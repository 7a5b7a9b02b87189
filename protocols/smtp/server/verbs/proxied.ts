/**
 * XCLIENT and XFORWARD, as Postfix documents them: a proxy or a filter that we trust tells of the client behind it. XCLIENT puts the client in
 * the place of the peer, and the session starts over. XFORWARD is for logs and Received only, and for one message.
 */
import { type ProxiedAttribute, parseProxiedAttributes, xclientAttributes, xforwardAttributes } from '../../grammar/proxied.js';
import { reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';
import type { ForwardedClient } from '../handler.js';
import { proxiedTotal } from '../metrics.js';

/** The address of a client whose address the proxy does not know. Not the proxy's own, which may have rights. */
const unknownAddress = '0.0.0.0';

/** The attributes, unless the command is refused. */
function read(session: SessionCore, argument: string, verb: 'XCLIENT' | 'XFORWARD', known: readonly ProxiedAttribute[]) {
  const refuse = (code: number, enhanced: string, text: string) => {
    proxiedTotal.inc({ mode: session.mode, command: verb.toLowerCase(), result: 'refused' });
    session.protocolError('command', reply(code, enhanced, text));
    return undefined;
  };
  if (!session.policy?.isTrustedPeer) return refuse(550, '5.7.0', `${verb} is not for you`);
  if (session.mail) return refuse(503, '5.5.1', `${verb} is not allowed within a transaction`);
  if (argument === '') return refuse(501, '5.5.4', `${verb} takes attributes`);
  const attributes = parseProxiedAttributes(argument, known);
  if (typeof attributes === 'string') return refuse(501, '5.5.4', attributes);
  proxiedTotal.inc({ mode: session.mode, command: verb.toLowerCase(), result: 'taken' });
  return attributes;
}

export function xclient(session: SessionCore, argument: string) {
  const attributes = read(session, argument, 'XCLIENT', xclientAttributes);
  if (!attributes) return;
  const peer = session.remoteAddress;
  const login = attributes.get('LOGIN');
  if (attributes.has('ADDR')) session.remoteAddress = attributes.get('ADDR') ?? unknownAddress;
  if (attributes.has('PORT')) session.remotePort = Number(attributes.get('PORT') ?? 0);
  // The name belongs to the address: that of another client must not stay.
  if (attributes.has('NAME') || attributes.has('ADDR')) session.remoteName = attributes.get('NAME');
  if (attributes.has('DESTADDR')) session.localAddress = attributes.get('DESTADDR');
  if (attributes.has('DESTPORT')) session.localPort = Number(attributes.get('DESTPORT') ?? 0);
  session.logger.info({ peer, client: session.remoteAddress, name: session.remoteName }, 'XCLIENT: the session starts over');
  // A login gives rights by the proof of a password or a token alone, which nobody has shown us.
  if (login !== undefined) session.logger.info({ login }, 'XCLIENT LOGIN is not taken: who sends mail must log in here');
  const name = attributes.get('HELO');
  session.restart(name === undefined ? undefined : { name, extended: attributes.get('PROTO') !== 'SMTP' });
}

const fields = {
  NAME: 'name',
  ADDR: 'address',
  PROTO: 'protocol',
  HELO: 'helo',
  IDENT: 'identity',
  SOURCE: 'source',
} as const satisfies Partial<Record<ProxiedAttribute, keyof ForwardedClient>>;

export function xforward(session: SessionCore, argument: string) {
  const attributes = read(session, argument, 'XFORWARD', xforwardAttributes);
  if (!attributes) return;
  // Postfix says it in several commands: a later one adds to those before.
  const client: ForwardedClient = { ...session.forwarded };
  for (const [attribute, value] of attributes) {
    if (attribute === 'PORT') {
      if (value === undefined) delete client.port;
      else client.port = Number(value);
      continue;
    }
    const field = fields[attribute as keyof typeof fields];
    if (value === undefined) delete client[field];
    else client[field] = value;
  }
  session.forwarded = client;
  session.send(reply(250, '2.0.0', 'OK'));
}
