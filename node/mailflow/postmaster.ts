/** Who the postmaster is: every mail server has one (RFC 5321 4.5.1), also where its own name is no domain that it takes mail for. */
import type { Directory, Resolution } from '../../store/directory/contract.js';
import { domainOfAddress } from './addresses.js';

/** `<postmaster>` without a domain (RFC 5321 4.1.1.3). */
export const isBarePostmaster = (address: string): boolean => address.toLowerCase() === 'postmaster';

/** Where mail for `<postmaster>` goes, and for a local domain's postmaster whom nobody is: to `postmasterAddress` where that is ours, else to an administrator. */
export async function resolvePostmaster(
  directory: Pick<Directory, 'resolve'>,
  postmasterAddress: string,
): Promise<{ address: string; resolution: Resolution }> {
  const resolution = await directory.resolve(postmasterAddress);
  if (resolution.kind === 'local') return { address: postmasterAddress, resolution };
  const admin = await directory.resolve('postmaster');
  const [target] = admin.kind === 'local' ? admin.targets : [];
  return target
    ? { address: target.address, resolution: admin }
    : { address: postmasterAddress, resolution: { kind: 'unknown' } };
}

/** The postmaster of a local address's domain: mail for it always arrives here. */
export const postmasterOf = (address: string): string => `postmaster@${domainOfAddress(address)}`;
