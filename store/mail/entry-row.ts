/** Reads the stored value of an entry without making an object: for mailboxes that are read whole, a million rows of them. */
import { emailIdLength } from './ids.js';

/** Where the id's characters begin in an entry's value: after the array's head, the format and the string's head. */
export const idOffset = 3;
/** What `readEntryRow` found: \Deleted, modseq, keyword bits, size, received, saved. */
export const fields = new Float64Array(6);

/**
 * Reads an entry's value of the usual form (see `encodeEntry`): a msgpack array of nine, an id of 20 characters, no uncommon keywords, numbers that are not
 * negative. Answers false for any other form.
 */
export function readEntryRow(row: Buffer): boolean {
  if (row[0] !== 0x99 || row[1] !== 1 || row[2] !== (0xa0 | emailIdLength)) return false;
  let at = idOffset + emailIdLength;
  for (let field = 0; field < 6; field++) {
    // Between the bits and the size stands the list of uncommon keywords, or 0.
    if (field === 3 && row[at++] !== 0) return false;
    const code = row[at++]!;
    if (code < 0x80) fields[field] = code;
    else if (code === 0xce) {
      fields[field] = ((row[at]! << 24) | (row[at + 1]! << 16) | (row[at + 2]! << 8) | row[at + 3]!) >>> 0;
      at += 4;
    } else if (code === 0xcb) {
      fields[field] = row.readDoubleBE(at);
      at += 8;
    } else if (code === 0xcd) {
      fields[field] = (row[at]! << 8) | row[at + 1]!;
      at += 2;
    } else if (code === 0xcc) fields[field] = row[at++]!;
    else return false;
  }
  return at === row.length;
}
