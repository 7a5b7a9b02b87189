/**
 * Counts line ends in ranges of a message. Counts of whole blocks are remembered, so that ranges which lie inside one another (embedded messages)
 * cost each byte once.
 */
const blockBytes = 8 * 1024;
const lf = 0x0a;

export class LineCounter {
  private readonly blocks: number[] = [];

  constructor(private readonly bytes: Uint8Array) {}

  /** Number of LF in `[start, end)`. */
  count(start: number, end: number): number {
    if (end - start <= blockBytes) return this.scan(start, end);
    const firstBlock = Math.ceil(start / blockBytes);
    const lastBlock = Math.floor(end / blockBytes);
    if (firstBlock >= lastBlock) return this.scan(start, end);
    let total = this.scan(start, firstBlock * blockBytes) + this.scan(lastBlock * blockBytes, end);
    for (let block = firstBlock; block < lastBlock; block++) {
      total += this.blocks[block] ??= this.scan(block * blockBytes, (block + 1) * blockBytes);
    }
    return total;
  }

  /** Jumps from line end to line end; where lines are very short, stepping through the bytes is cheaper than a call per line. */
  private scan(start: number, end: number): number {
    // A view of the range alone: without it, every search in a range without line ends would run on to the message's end.
    const range = this.bytes.subarray(start, end);
    let total = 0;
    let at = 0;
    while (at < range.length) {
      const found = range.indexOf(lf, at);
      if (found < 0) return total;
      total++;
      const gap = found - at;
      at = found + 1;
      if (gap >= 16) continue;
      const stop = Math.min(range.length, at + 256);
      while (at < stop) if (range[at++] === lf) total++;
    }
    return total;
  }
}
