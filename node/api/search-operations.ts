/** Operations on the full-text index. */
import { SearchError } from '../../store/search/contract.js';
import { isPending, notePending, pendingKey } from '../../store/search/pending.js';
import { type Operation, type OperationContext, OperationRefused } from './operation.js';

/** Accounts that `search status` looks at without being asked for one. */
const maxAccounts = 10_000;

interface IndexRow {
  address: string;
  /** Of the account, now. */
  messages: number;
  /** In the index; those that were destroyed since it was last tidied are among them. */
  indexed: number;
  /** All messages created up to this modseq are in it. */
  modseq: number | null;
  /** Whether there is mail that it does not know yet. */
  isPending: boolean;
  problem?: string;
}

async function rowOf({ stores }: OperationContext, { id, address }: { id: string; address: string }): Promise<IndexRow> {
  const { mail, search, kv } = stores;
  const [{ messages }, waits] = await Promise.all([mail.usage(id), kv.read((reads) => isPending(reads, id))]);
  try {
    const progress = await search.progress(id);
    const { modseq = null, documents: indexed = 0 } = progress ?? {};
    return { address, messages, indexed, modseq, isPending: waits || (!progress && messages > 0) };
  } catch (error) {
    if (!(error instanceof SearchError)) throw error;
    return { address, messages, indexed: 0, modseq: null, isPending: waits, problem: error.message };
  }
}

async function accountOf({ stores }: OperationContext, address: string) {
  const principal = await stores.directory.principal(address);
  if (!principal || principal.kind === 'list') throw new OperationRefused(`there is no account ${address}`);
  return principal;
}

export const searchOperations: Record<string, Operation> = {
  'search status': {
    usage: '[ADDRESS]',
    summary: 'how far the full-text index is, of one account or of all',
    run: async (context, { positionals }) => {
      const [address] = positionals;
      if (address !== undefined) return rowOf(context, await accountOf(context, address));
      const rows: IndexRow[] = [];
      const { directory } = context.stores;
      const principals = (await Promise.all([directory.principals('account'), directory.principals('group')])).flat();
      for (const principal of principals.slice(0, maxAccounts)) {
        context.signal?.throwIfAborted();
        rows.push(await rowOf(context, principal));
      }
      return rows;
    },
  },
  'search reindex': {
    usage: 'ADDRESS',
    summary: 'throw the full-text index of an account away and have it made anew',
    run: async (context, { positionals }) => {
      const { mail, search, kv } = context.stores;
      const { id, address } = await accountOf(context, positionals[0]!);
      const { messages, modseq } = await mail.usage(id);
      await search.remove(id);
      await kv.transact(
        async (tx) => {
          // Mail that has come meanwhile has left its own, later note.
          if (!(await isPending(tx, id))) notePending(tx, pendingKey(id), modseq);
        },
        { label: 'search-reindex' },
      );
      return { address, messages, isPending: true };
    },
  },
};
