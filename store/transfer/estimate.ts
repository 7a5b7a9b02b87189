/** How many bytes a store holds, roughly and quickly: from the counters of its accounts, for progress bars. */
import { keyItems, keysUnder, subspace } from '../keyspace.js';
import { keyAfter } from '../kv/contract.js';
import { decodeState } from '../mail/records.js';
import type { RowReader } from './rows.js';

/** Records, entries, log and links of a message, and a usual message's content after compression against its size. */
const rowBytesPerMessage = 1_800;
const compressedShare = 0.7;

export async function estimateBytes(reader: RowReader): Promise<number> {
  let bytes = 64 * 1024;
  const mail = keysUnder(subspace.mail);
  for (let begin = mail.begin; ; ) {
    const from = begin;
    // The next account, then its state: two small reads per account.
    const [row] = await reader.read((reads) => reads.getRange(from, mail.end, { limit: 1 }));
    if (!row) return Math.round(bytes);
    const account = keysUnder(subspace.mail, keyItems(row.key)[1] as string);
    const states = keysUnder(subspace.mail, keyItems(row.key)[1] as string, 'state');
    const state = await reader.read((reads) => reads.get(states.begin.subarray(0, -1)));
    if (state) {
      const { messages, usedBytes } = decodeState(state);
      bytes += messages * rowBytesPerMessage + usedBytes * compressedShare;
    }
    begin = keyAfter(account.end);
  }
}
