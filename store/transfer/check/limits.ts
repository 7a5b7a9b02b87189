/** Checks bans and look-up lists: every record can be read, and every ban is under the key of its network. Counters and greylist entries end by themselves. */
import { keyItems, keysUnder, subspace } from '../../keyspace.js';
import { decodeBan } from '../../limits/ban-records.js';
import { banRange } from '../../limits/keys.js';
import { networkText, parseNetwork } from '../../limits/networks.js';
import { decodeEntry } from '../../lookups/records.js';
import type { Inspection } from './inspection.js';

const rowsPerPage = 500;
const area = 'limits';

export async function checkLimits(inspection: Inspection): Promise<void> {
  for await (const rows of inspection.pages(banRange(), rowsPerPage)) {
    for (const { key, value } of rows) {
      const where = keyItems(key)[2] as string;
      const ban = inspection.readable(area, where, () => decodeBan(value));
      const parsed = ban && parseNetwork(ban.network);
      if (!ban || (parsed && networkText(parsed) === where)) continue;
      // Nobody would be kept out by it, and nobody could lift it.
      await inspection.suspect({
        area,
        where,
        problem: `is a ban of ${ban.network}`,
        isSo: async (tx) => (await tx.get(key))?.equals(value) ?? false,
        mend: (tx) => tx.clear(key),
      });
    }
    inspection.progress(area, rows.length);
  }
  for await (const rows of inspection.pages(keysUnder(subspace.lookups, 'entry'), rowsPerPage)) {
    for (const { key, value } of rows) inspection.readable(area, keyItems(key).slice(2).join(' '), () => decodeEntry(value));
    inspection.progress(area, rows.length);
  }
}
