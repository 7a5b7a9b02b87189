import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../ops/telemetry/index.js';
import { NumberedLines } from './numbered-lines.js';
import { Output } from './output.js';

interface Line {
  first: number;
  second: number;
  tail: string;
}

/** What the socket gets of these lines, with a word between any two that follow a flush. */
function written(lines: readonly Line[], middle: string, expected: number, flushEvery = Number.POSITIVE_INFINITY): string {
  const socket = new PassThrough({ highWaterMark: 100_000_000 });
  const output = new Output(socket, systemClock, { maxBufferedOutputBytes: 100_000_000, writeTimeoutMs: 1_000 });
  const numbered = new NumberedLines(output, middle, expected);
  lines.forEach(({ first, second, tail }, at) => {
    numbered.add(first, second, tail);
    if ((at + 1) % flushEvery !== 0) return;
    numbered.flush();
    output.write('* between\r\n');
  });
  numbered.flush();
  output.flush();
  return (socket.read() as Buffer | null)?.toString('latin1') ?? '';
}

function asText(lines: readonly Line[], middle: string, flushEvery = Number.POSITIVE_INFINITY): string {
  return lines
    .map(({ first, second, tail }, at) => {
      const line = `* ${first}${middle}${second < 0 ? '' : second}${tail}\r\n`;
      return (at + 1) % flushEvery === 0 ? `${line}* between\r\n` : line;
    })
    .join('');
}

const tails = [' FLAGS ())', ' FLAGS (\\Seen))', ' FLAGS (\\Seen \\Deleted keyword) MODSEQ (123456))'];

describe('lines that differ in their numbers', () => {
  it('are the same as if each were written alone, over many blocks', () => {
    const lines = Array.from({ length: 12_000 }, (_, at) => ({
      first: at + 1,
      second: 2 * at + 95,
      tail: tails[at % 50 === 0 ? 1 : 0]!,
    }));
    expect(written(lines, ' FETCH (UID ', lines.length)).toBe(asText(lines, ' FETCH (UID '));
  });

  it('can have one number alone', () => {
    const lines = Array.from({ length: 2_000 }, (_, at) => ({
      first: 4_294_966_000 + (at % 1_295),
      second: -1,
      tail: 'FLAGS ())',
    }));
    expect(written(lines, ' UIDFETCH (', lines.length)).toBe(asText(lines, ' UIDFETCH ('));
  });

  it('take numbers of any order and length, tails of any kind, and what is written in between', () => {
    const number = fc.oneof(fc.nat(12), fc.nat(1_001), fc.nat(0xffff_ffff));
    const second = fc.oneof(number, fc.constant(-1));
    const tail = fc.oneof(
      fc.constantFrom(...tails),
      fc.nat(40_000).map((length) => `${'x'.repeat(length)})`),
    );
    const line = fc.record({ first: number, second, tail });
    fc.assert(
      fc.property(
        fc.array(line, { maxLength: 60 }),
        fc.constantFrom(0, 40, 1_000),
        fc.integer({ min: 1, max: 80 }),
        (lines, expected, every) => {
          expect(written(lines, ' FETCH (UID ', expected, every)).toBe(asText(lines, ' FETCH (UID ', every));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('do not change bytes that the socket still has', () => {
    const lines = Array.from({ length: 3_000 }, (_, at) => ({ first: at + 1, second: at + 1, tail: tails[0]! }));
    // All is read at the end: a block that were used again would show twice.
    expect(written(lines, ' FETCH (UID ', lines.length, 300)).toBe(asText(lines, ' FETCH (UID ', 300));
  });
});
