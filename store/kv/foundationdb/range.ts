/** Reading a range of keys completely, batch for batch. */
import type { NativeTransaction } from 'foundationdb/dist/lib/native.js';
import type { KeyValue } from '../contract.js';

/** `StreamingMode` of `fdb_c_options.g.h`: `exact` sends `limit` rows at once, `wantAll` as much as is good for one answer. */
const streamingMode = { wantAll: -2, exact: 0 } as const;
/** Up to so many rows are asked for in one answer. */
const maxExactRows = 1_000;
const maxLimit = 2_147_483_647;

/**
 * The first `limit` (perhaps infinite) rows of `[begin, end)`, from the end when `reverse`. `beforeNext` is called before each further
 * batch and may throw.
 */
export async function readRange(
  native: NativeTransaction,
  range: { begin: Buffer; end: Buffer },
  limit: number,
  reverse: boolean,
  isSnapshot: boolean,
  beforeNext: () => void,
): Promise<KeyValue[]> {
  const rows: KeyValue[] = [];
  const mode = limit <= maxExactRows ? streamingMode.exact : streamingMode.wantAll;
  let { begin, end } = range;
  let isAfterBegin = false;
  for (let batch = 1; ; batch++) {
    const wanted = limit - rows.length;
    // Key selectors: `(key, false, 1)` is the first key not below `key`, `(key, true, 1)` the first above it; 0 rows are all.
    const { results, more } = await native.getRange(
      begin,
      isAfterBegin,
      1,
      end,
      false,
      1,
      wanted > maxLimit ? 0 : wanted,
      0,
      mode,
      batch,
      isSnapshot,
      reverse,
    );
    for (const [key, value] of results) rows.push({ key, value });
    if (!more || results.length === 0 || rows.length >= limit) return rows;
    beforeNext();
    // A copy: the rows are the caller's, and so is what they hold.
    const last = Buffer.from(results.at(-1)![0]);
    if (reverse) end = last;
    else {
      begin = last;
      isAfterBegin = true;
    }
  }
}
