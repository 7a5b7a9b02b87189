/** Which part of an address a test looks at (RFC 5228 2.7.4, RFC 5233). */
import { formatAddressSpec, type MailboxAddress } from '../../message/index.js';
import type { Arguments } from '../contract.js';

export type AddressPart = 'all' | 'localpart' | 'domain' | 'user' | 'detail';

/** What of an address is compared; undefined: the address has no such part, and matches nothing. */
export type AddressPartOf = (address: Pick<MailboxAddress, 'local' | 'domain'> & { name?: string | null }) => string | undefined;

/**
 * Use `...addressPartTags` in the signature.
 * @param separator between user and detail, at its first place in the local part (RFC 5233 4); '' when addresses have no details.
 */
export function addressPartOf(arguments_: Arguments, separator: string): AddressPartOf {
  const part = (arguments_.tagOf('address-part') ?? 'all') as AddressPart;
  if (part === 'all') return wholeAddress;
  return (address) => {
    // RFC 5228 2.7.4: parts of what is no address match nothing.
    if (address.local === '' || address.domain === '') return undefined;
    return partOf(part, address, separator);
  };
}

/** An address that can't be read is what was found in its place. */
const wholeAddress: AddressPartOf = (address) => {
  if (address.local === '' && address.domain === '') return address.name || undefined;
  return formatAddressSpec(address);
};

function partOf(part: AddressPart, { local, domain }: { local: string; domain: string }, separator: string): string | undefined {
  if (part === 'domain') return domain;
  if (part === 'localpart') return local;
  const at = separator === '' ? -1 : local.indexOf(separator);
  if (part === 'detail') return at < 0 ? undefined : local.slice(at + separator.length);
  return at < 0 ? local : local.slice(0, at);
}
