/** VRFY and EXPN (RFC 5321 3.5) for those who have logged in; everybody else is told that nothing is told. */
import { type Reply, reply } from '../../../protocols/smtp/grammar/index.js';
import type { SessionInfo } from '../../../protocols/smtp/server/handler.js';
import type { Directory, Principal } from '../../../store/directory/contract.js';
import { replies } from '../replies.js';

export type VerifyDirectory = Pick<Directory, 'resolve' | 'principal'>;

/** More members than this are not listed. */
const maxListedMembers = 500;

const noSuchList = reply(550, '5.1.1', 'No such list or group here');
const tooManyMembers = reply(252, '2.0.0', `It has more than ${maxListedMembers} members`);

/** `alice`, `<alice@example.net>`, `Alice <alice@example.net>`, and the address alone. */
function addressIn(argument: string): string {
  const bracketed = /<([^<>]*)>\s*$/.exec(argument);
  return (bracketed?.[1] ?? argument).trim();
}

const shown = ({ displayName, address }: Pick<Principal, 'displayName' | 'address'>) =>
  displayName === '' ? `<${address}>` : `${displayName} <${address}>`;

/** Undefined: the session's own answer, 252. */
export async function verify(directory: VerifyDirectory, session: SessionInfo, argument: string): Promise<Reply | undefined> {
  if (!session.principal) return undefined;
  const address = addressIn(argument);
  // RFC 5321 3.5.1: a name alone may mean several; ours are addresses.
  if (!address.includes('@')) return undefined;
  const resolution = await directory.resolve(address);
  if (resolution.kind === 'unknown') return replies.unknownRecipient;
  if (resolution.kind === 'disabled') return replies.disabledRecipient;
  if (resolution.kind === 'relay') return undefined;
  const principal = await directory.principal(address);
  return reply(250, '2.1.5', principal ? shown(principal) : `<${address}>`);
}

/** Members of a list or group, one per line. */
export async function expand(directory: VerifyDirectory, session: SessionInfo, argument: string): Promise<Reply | undefined> {
  if (!session.principal) return undefined;
  const principal = await directory.principal(addressIn(argument));
  if (!principal || principal.kind === 'account') return noSuchList;
  const { members } = principal;
  if (members.length > maxListedMembers) return tooManyMembers;
  return members.length === 0
    ? reply(250, '2.1.5', 'It has no members')
    : reply(
        250,
        '2.1.5',
        members.map((member) => `<${member}>`),
      );
}
