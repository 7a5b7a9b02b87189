/** Addresses that scripts write: constants are checked when the script is compiled, others when they are known. */
import { formatAddressSpec, parseMailboxAddress } from '../../message/index.js';
import { type CompileContext, type Run, SieveRunError, type Text } from '../contract.js';

/** `local@domain`, its display name dropped (RFC 5228 2.4.2.3); undefined: this is no address. */
export function addressIn(text: string): string | undefined {
  if (/[\x00-\x1f\x7f]/.test(text)) return undefined;
  const address = parseMailboxAddress(text);
  return address && formatAddressSpec(address);
}

/** Gives the address, or refuses the script or the run. */
export function addressOf(text: Text, context: CompileContext): (run: Run) => string {
  const { constant } = text;
  if (constant === undefined) return (run) => addressIn(text.of(run)) ?? refuse(text);
  const address = addressIn(constant) ?? context.fail(`'${constant.slice(0, 128)}' is no address of a mailbox`, text.at);
  return () => address;
}

function refuse(text: Text): never {
  throw new SieveRunError('this is no address of a mailbox', text.at);
}

/** Texts for the header of a message: on one line. */
export function onOneLine(text: string): string {
  return text.replace(/[\x00-\x1f\x7f]+/g, ' ').trim();
}
