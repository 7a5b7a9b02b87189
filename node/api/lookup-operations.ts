/** Operations on the look-up lists that expressions ask with `key_exists` and `key_get`. */
import type { LookupEntry } from '../../store/lookups/contract.js';
import { durationSeconds, isoTime, textFlag, wholeNumber } from './flags.js';
import { type Operation, OperationRefused } from './operation.js';

const defaultListed = 1_000;

/** Wrong names, keys and values are answers, not failures. */
async function orRefuse<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof RangeError) throw new OperationRefused(error.message, { cause: error });
    throw error;
  }
}

const row = ({ key, value, expiresAtMs }: LookupEntry) => ({
  key,
  value,
  until: expiresAtMs === undefined ? null : isoTime(expiresAtMs),
});

export const lookupOperations: Record<string, Operation> = {
  'lookup lists': {
    usage: '',
    summary: 'names of the look-up lists',
    run: async (context) => context.stores.lookups.lists(),
  },
  'lookup list': {
    usage: 'LIST [--limit N] [--after KEY]',
    summary: 'entries of a look-up list, in the order of their keys',
    run: async (context, { positionals, flags }) => {
      const limit = wholeNumber(textFlag(flags['limit']) ?? String(defaultListed), '--limit');
      const afterKey = textFlag(flags['after']);
      const options = { limit, ...(afterKey !== undefined && { afterKey }) };
      return (await orRefuse(async () => context.stores.lookups.entries(positionals[0]!, options))).map(row);
    },
  },
  'lookup set': {
    usage: 'LIST KEY [VALUE] [--for TIME]',
    summary: 'put a key into a look-up list, with a value, for so long',
    run: async (context, { positionals, flags }) => {
      const [list, key, value = ''] = positionals as [string, string, string?];
      const lasts = textFlag(flags['for']);
      const expiresAtMs =
        lasts === undefined ? undefined : context.stores.clock.nowMs() + durationSeconds(lasts, '--for') * 1_000;
      const entry: LookupEntry = { key: key.toLowerCase(), value, ...(expiresAtMs !== undefined && { expiresAtMs }) };
      await orRefuse(async () => context.stores.lookups.set(list, [entry]));
      return { list, ...row(entry) };
    },
  },
  'lookup remove': {
    usage: 'LIST KEY',
    summary: 'take a key out of a look-up list',
    run: async (context, { positionals }) => {
      const [list, key] = positionals as [string, string];
      const removed = await orRefuse(async () => context.stores.lookups.remove(list, [key.toLowerCase()]));
      if (removed === 0) throw new OperationRefused(`${list} has no key ${key}`);
      return { removed: key };
    },
  },
};
