/**
 * Many rows that probably lie side by side (entries of neighbouring UIDs, records of messages that came one after another), read as one range: for every
 * backend much cheaper than key by key. What the range turns out to lack is read key by key.
 */
import { type KvReads, keyAfter } from '../kv/contract.js';

const minKeys = 16;
/** Reads that go key by key after a range was found to hold mostly other rows. */
const readsAfterMiss = 16;

/** Remembers, for one table of one account, whether ranges have been worth it. */
export class Density {
  private missesLeft = 0;

  get isWorthTrying(): boolean {
    if (this.missesLeft === 0) return true;
    this.missesLeft--;
    return false;
  }

  note(found: number, read: number): void {
    if (found * 2 < read) this.missesLeft = readsAfterMiss;
  }
}

/** As `getMany`: values in the order asked. Of keys that are there twice, both. */
export async function getDense(reads: KvReads, keys: readonly Buffer[], density: Density): Promise<(Buffer | undefined)[]> {
  if (keys.length < minKeys || !density.isWorthTrying) return keys.length === 0 ? [] : reads.getMany(keys);
  const order = ascending(keys);
  const limit = keys.length + (keys.length >> 2) + 8;
  const rows = await reads.getRange(keys[order[0]!]!, keyAfter(keys[order[order.length - 1]!]!), { limit });
  const values: (Buffer | undefined)[] = new Array(keys.length).fill(undefined);
  let found = 0;
  let row = 0;
  let next = 0;
  for (; next < order.length; next++) {
    const key = keys[order[next]!]!;
    let difference = -1;
    while (row < rows.length && (difference = rows[row]!.key.compare(key)) < 0) row++;
    if (row === rows.length) break;
    if (difference !== 0) continue;
    values[order[next]!] = rows[row]!.value;
    found++;
  }
  density.note(found, rows.length);
  // The range was cut: it says nothing about what lies behind its last row.
  if (rows.length === limit && next < order.length) {
    const rest = order.slice(next);
    const more = await reads.getMany(rest.map((place) => keys[place]!));
    rest.forEach((place, at) => {
      values[place] = more[at];
    });
  }
  return values;
}

/** Places of the keys in ascending order. */
function ascending(keys: readonly Buffer[]): number[] {
  const order = keys.map((_, place) => place);
  for (let place = 1; place < keys.length; place++) {
    if (keys[place - 1]!.compare(keys[place]!) > 0) return order.sort((a, b) => keys[a]!.compare(keys[b]!));
  }
  return order;
}
