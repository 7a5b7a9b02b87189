/** Line ends of a message that are less than CRLF, for protocols that send nothing else (POP3, RFC 1939 section 3). */

const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/** Bytes by which a message grows when each of its lines ends in CRLF, the last one included: 0 for nearly all mail. */
export function missingLineEndBytes(bytes: Uint8Array): number {
  let missing = 0;
  for (let at = bytes.indexOf(lineFeed); at >= 0; at = bytes.indexOf(lineFeed, at + 1)) {
    if (bytes[at - 1] !== carriageReturn) missing++;
  }
  const last = bytes.at(-1);
  if (last === undefined || last === lineFeed) return missing;
  return missing + (last === carriageReturn ? 1 : 2);
}
