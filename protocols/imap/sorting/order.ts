/**
 * The order of a SORT (RFC 5256): one pass of a native sort per criterion, the last one first, on keys that carry the order so far in their lowest bits; so
 * equal ones keep it, down to the mailbox's own.
 */
import type { IndexView } from '../../../store/mail/contract.js';
import type { SessionContext } from '../context.js';
import type { SortCriterion, SortKey } from '../grammar/sort-keys.js';
import type { Found } from '../search/run.js';
import { messageFacts } from './facts-cache.js';
import type { MessageFacts, TextColumn } from './message-facts.js';

/** Bits of a key for the value, and for the place in the order so far. */
const placeBits = 24;
const maxPlaces = 1 << placeBits;
const maxValue = 2 ** 40 - 1;
/** Seconds between year 1 and the epoch: dates before 1970 are above 0 too. */
const epochOffsetSeconds = 62_135_596_800;

const textColumns: Partial<Record<SortKey, TextColumn>> = {
  SUBJECT: 'subject',
  FROM: 'from',
  TO: 'to',
  CC: 'cc',
  DISPLAYFROM: 'displayFrom',
  DISPLAYTO: 'displayTo',
};

/** Indexes of `columns`' rows, ordered by the first column, then the second …; values are whole numbers from 0 to 2^40 - 1. */
export function orderBy(columns: readonly { values: Float64Array; isReverse: boolean }[], rows: number): Uint32Array {
  let order = Uint32Array.from({ length: rows }, (_, i) => i);
  if (rows >= maxPlaces) return order.sort((a, b) => compareRows(columns, a, b) || a - b);
  const keys = new BigUint64Array(rows);
  const words = new Uint32Array(keys.buffer);
  for (let c = columns.length - 1; c >= 0; c--) {
    const { values, isReverse } = columns[c]!;
    for (let place = 0; place < rows; place++) {
      const value = isReverse ? maxValue - values[order[place]!]! : values[order[place]!]!;
      words[2 * place] = (((value & 0xff) << placeBits) | place) >>> 0;
      words[2 * place + 1] = value / 256;
    }
    keys.sort();
    const next = new Uint32Array(rows);
    for (let place = 0; place < rows; place++) next[place] = order[words[2 * place]! & (maxPlaces - 1)]!;
    order = next;
  }
  return order;
}

function compareRows(columns: readonly { values: Float64Array; isReverse: boolean }[], a: number, b: number): number {
  for (const { values, isReverse } of columns) {
    const difference = values[a]! - values[b]!;
    if (difference !== 0) return isReverse ? -difference : difference;
  }
  return 0;
}

/** The same messages in the order asked for. Throws KvError, ConnectionClosed. */
export async function sorted(context: SessionContext, found: Found, criteria: readonly SortCriterion[]): Promise<Found> {
  const { announced, positions } = found;
  if (positions.length < 2) return found;
  const selected = context.requireSelected();
  const needsFacts = criteria.some(({ key }) => key !== 'ARRIVAL' && key !== 'SIZE');
  const facts = needsFacts ? await messageFacts(context, selected) : undefined;
  // From here on nothing waits: facts and view stay as they are.
  const uids = positions.map((position) => announced[position]!);
  const slots = facts?.slotsOf(uids);
  const view = selected.index.view();
  const columns = criteria.map(({ key, isReverse }) => ({
    isReverse,
    values: slots && key !== 'ARRIVAL' && key !== 'SIZE' ? factColumn(facts!, slots, key) : indexColumn(view, uids, key),
  }));
  return { announced, positions: orderBy(columns, positions.length).map((row) => positions[row]!) };
}

function clamped(value: number): number {
  return Math.min(maxValue, Math.max(0, value));
}

function indexColumn(view: IndexView, uids: Uint32Array, key: SortKey): Float64Array {
  const values = new Float64Array(uids.length);
  let at = -1;
  for (let i = 0; i < uids.length; i++) {
    if (view.uids[++at] !== uids[i]! && (at = view.positionOf(uids[i]!)) < 0) continue;
    // INTERNALDATE is told in seconds; what looks the same to a client counts the same.
    const value = key === 'SIZE' ? view.sizeBytesAt(at) : Math.floor(view.receivedAtMsAt(at) / 1000) + epochOffsetSeconds;
    values[i] = clamped(value);
  }
  return values;
}

function factColumn(facts: MessageFacts, slots: Int32Array, key: SortKey): Float64Array {
  const column = textColumns[key];
  const values = new Float64Array(slots.length);
  if (!column) {
    for (let i = 0; i < slots.length; i++)
      if (slots[i]! >= 0) values[i] = clamped(facts.sentSecondsAt(slots[i]!) + epochOffsetSeconds);
    return values;
  }
  const ranks = (column === 'subject' ? facts.subjects : facts.addresses).ranks();
  for (let i = 0; i < slots.length; i++) if (slots[i]! >= 0) values[i] = ranks[facts.textAt(column, slots[i]!)]!;
  return values;
}
