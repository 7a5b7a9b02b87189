/** Has all mail of a store that was put back go on above what its users may have seen of the time that is lost (`../mail/lost-history.ts`). */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import { keyItems, keysUnder, subspace } from '../keyspace.js';
import type { KvStore } from '../kv/contract.js';
import { goAhead } from '../mail/lost-history.js';
import { TransferInterrupted, TransferRefused } from './contract.js';
import { unfinishedIn } from './marker.js';
import { liveNodes } from './nodes.js';

export interface GoAheadOptions {
  kv: KvStore;
  clock: Clock;
  random: Random;
  signal?: AbortSignal | undefined;
}

/** Account by account; harmless to repeat. Answers how many there are. Throws `TransferInterrupted`, KvError. */
export async function allGoAhead(options: GoAheadOptions): Promise<number> {
  const { kv, signal } = options;
  const all = keysUnder(subspace.mail);
  let accounts = 0;
  for (let begin = all.begin; ; ) {
    const from = begin;
    const [row] = await kv.read((reads) => reads.getRange(from, all.end, { limit: 1 }));
    if (!row) return accounts;
    if (signal?.aborted) throw new TransferInterrupted('interrupted while finishing; the same command goes on from there');
    const accountId = keyItems(row.key)[1] as string;
    if (await goAhead(options, accountId)) accounts++;
    begin = keysUnder(subspace.mail, accountId).end;
  }
}

/** The same for a store that was put back by means that know nothing of mail: the engine's own tools, a copy of its files. Throws also `TransferRefused`. */
export async function goAheadAfterRestore(options: GoAheadOptions): Promise<{ accounts: number }> {
  const { kv, clock, signal } = options;
  const problem = await kv.read(unfinishedIn);
  if (problem) throw new TransferRefused(problem);
  const live = await liveNodes(kv, clock, signal);
  if (live.length > 0) throw new TransferRefused(`nodes run on the store (${live.join(', ')}): stop them first`);
  return { accounts: await allGoAhead(options) };
}
