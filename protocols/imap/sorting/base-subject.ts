/** The base subject of RFC 5256 2.1: a subject without `Re:`, `Fwd:`, `[list]` and the like. In one pass over the text, however it is nested. */

export interface BaseSubject {
  text: string;
  /** Something was removed that a reply or a forward puts there (RFC 5256, THREAD=REFERENCES). */
  isReply: boolean;
}

const blobs = /(?:\[[^[\]]*\][ \t]*)*/y;
const refwd = /(?:re|fwd?)[ \t]*(?:\[[^[\]]*\][ \t]*)?:/iy;
const forwardHeader = '[fwd:';
const forwardTrailer = '(fwd)';

/** `decoded` is the subject in Unicode, RFC 2047 words decoded. */
export function baseSubject(decoded: string): BaseSubject {
  const text = decoded.replace(/[\t\r\n ]+/g, ' ');
  let start = 0;
  let end = text.length;
  let isReply = false;
  for (;;) {
    // (2) trailers
    for (;;) {
      if (end > start && text.charCodeAt(end - 1) === 0x20) end--;
      else if (
        end - start >= forwardTrailer.length &&
        text.slice(end - forwardTrailer.length, end).toLowerCase() === forwardTrailer
      ) {
        end -= forwardTrailer.length;
        isReply = true;
      } else break;
    }
    // (3) to (5) leaders and blobs
    const stripped = withoutLeaders(text, start, end);
    start = stripped.start;
    isReply ||= stripped.isReply;
    // (6) a subject within [fwd: …]
    const isForward =
      text.charCodeAt(end - 1) === 0x5d && text.slice(start, start + forwardHeader.length).toLowerCase() === forwardHeader;
    if (!isForward || end - start <= forwardHeader.length) return { text: text.slice(start, end), isReply };
    start += forwardHeader.length;
    end--;
    isReply = true;
  }
}

function withoutLeaders(text: string, from: number, end: number): { start: number; isReply: boolean } {
  let start = from;
  let isReply = false;
  for (;;) {
    while (start < end && text.charCodeAt(start) === 0x20) start++;
    blobs.lastIndex = start;
    blobs.exec(text);
    const behindBlobs = Math.min(blobs.lastIndex, end);
    refwd.lastIndex = behindBlobs;
    if (refwd.exec(text) && refwd.lastIndex <= end) {
      start = refwd.lastIndex;
      isReply = true;
      continue;
    }
    // (4) No leader can follow any more: all blobs go, but the last one where it is all there is.
    return { start: behindBlobs < end ? behindBlobs : lastBlob(text, start, end), isReply };
  }
}

/** Where the last of the blobs that fill [start, end) begins; `start` where there is no text, or what there is is no blob. */
function lastBlob(text: string, start: number, end: number): number {
  const open = text.lastIndexOf('[', end - 1);
  return open > start ? open : start;
}
