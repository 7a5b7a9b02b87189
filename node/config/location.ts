/** Where the store is and which key opens its secrets, from the command line and the environment, over what the file says. */
import { parseStoreAddress, type StoreAddress } from '../../store/kv/address.js';
import { ConfigError } from './load.js';
import type { ConfigInput } from './schema.js';

export const storeVariable = 'STARLING_STORE';

export interface Location {
  /** As in `--store`. */
  store?: string | undefined;
  clusterKeyFile?: string | undefined;
  env?: NodeJS.ProcessEnv;
}

/** An option wins over the file, the file over STARLING_STORE. Throws `ConfigError`, which never quotes the address: there may be a password in it. */
export function withLocation(input: ConfigInput, { store, clusterKeyFile, env = process.env }: Location): ConfigInput {
  const located = { ...input };
  const given = store ?? (input.store === undefined ? env[storeVariable] || undefined : undefined);
  if (given !== undefined) {
    const section = storeSection(given, store === undefined ? storeVariable : '--store');
    located.store = section.backend === 'embedded' ? section : { ...section, ...patience(input.store) };
  }
  if (clusterKeyFile !== undefined) {
    located.clusterKeyFile = clusterKeyFile;
    delete located.clusterKey;
  }
  return located;
}

/** Says nothing of the place, hence holds for another one as well. */
function patience(store: ConfigInput['store']): { startTimeoutSeconds?: number } {
  if (store === undefined || store.backend === 'embedded' || store.startTimeoutSeconds === undefined) return {};
  return { startTimeoutSeconds: store.startTimeoutSeconds };
}

function storeSection(text: string, where: string): NonNullable<ConfigInput['store']> {
  let address: StoreAddress;
  try {
    address = parseStoreAddress(text);
  } catch (error) {
    throw new ConfigError(`${where}: ${(error as Error).message}`, { cause: error });
  }
  return address;
}
