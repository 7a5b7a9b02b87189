/** Numbers and short strings of the mail store's msgpack values, byte by byte: for rows that are made in thousands, without an object for each. */

/** What `readNumber` read. */
export const lastNumber = { value: 0 };

/** Reads a number that is not negative; answers where the next value begins, or -1 for anything else. */
export function readNumber(row: Buffer, at: number): number {
  const code = row[at]!;
  if (code < 0x80) {
    lastNumber.value = code;
    return at + 1;
  }
  const next = skipNumber(row, at);
  if (next < 0) return -1;
  if (code === 0xcc) lastNumber.value = row[at + 1]!;
  else if (code === 0xcd) lastNumber.value = row.readUInt16BE(at + 1);
  else if (code === 0xce) lastNumber.value = row.readUInt32BE(at + 1);
  else lastNumber.value = row.readDoubleBE(at + 1);
  return next;
}

/** Where the value after a number that is not negative begins, or -1 for anything else. */
export function skipNumber(row: Buffer, at: number): number {
  const code = row[at];
  if (code === undefined) return -1;
  const next = code < 0x80 ? at + 1 : code === 0xcc ? at + 2 : code === 0xcd ? at + 3 : code === 0xce ? at + 5 : at + 9;
  return next <= row.length && (code < 0x80 || (code >= 0xcc && code <= 0xce) || code === 0xcb) ? next : -1;
}

/** At most so many bytes are written by `putNumber`. */
export const maxNumberBytes = 9;

/** Writes an integer from 0 up as msgpackr does; answers the place behind it. */
export function putNumber(out: Buffer, at: number, value: number): number {
  if (value < 0x80) {
    out[at] = value;
    return at + 1;
  }
  if (value < 0x100) {
    out[at] = 0xcc;
    out[at + 1] = value;
    return at + 2;
  }
  if (value < 0x1_0000) {
    out[at] = 0xcd;
    return out.writeUInt16BE(value, at + 1);
  }
  if (value < 0x1_0000_0000) {
    out[at] = 0xce;
    return out.writeUInt32BE(value, at + 1);
  }
  out[at] = 0xcb;
  return out.writeDoubleBE(value, at + 1);
}

/** The head of an array of so many values. */
export function putArrayHead(out: Buffer, at: number, length: number): number {
  if (length < 16) {
    out[at] = 0x90 | length;
    return at + 1;
  }
  if (length < 0x1_0000) {
    out[at] = 0xdc;
    return out.writeUInt16BE(length, at + 1);
  }
  out[at] = 0xdd;
  return out.writeUInt32BE(length, at + 1);
}
