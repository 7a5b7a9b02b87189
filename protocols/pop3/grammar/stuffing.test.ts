import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { missingLineEndBytes } from '../../message/index.js';
import { DotStuffer, TopCut } from './stuffing.js';

/** What a strict client makes of the bytes of a multi-line response (RFC 1939 section 3). */
function received(response: Buffer): Buffer {
  const text = response.toString('latin1');
  const end = text.startsWith('.\r\n') ? 0 : text.indexOf('\r\n.\r\n') + 2;
  expect(text.length).toBe(end + 3);
  return Buffer.from(text.slice(0, end).replace(/(^|\r\n)\./g, '$1'), 'latin1');
}

/** What is to arrive: CRLF for bare line feeds, and a line end at the end. */
function canonical(message: Buffer): string {
  const text = message.toString('latin1').replace(/(?<!\r)\n/g, '\r\n');
  return text === '' || text.endsWith('\n') ? text : text.endsWith('\r') ? `${text}\n` : `${text}\r\n`;
}

function stuff(message: Buffer, cuts: readonly number[]): Buffer {
  const stuffer = new DotStuffer();
  const ends = [...new Set(cuts.map((cut) => cut % (message.length + 1)))].sort((a, b) => a - b);
  const pieces = [0, ...ends].map((start, i) => stuffer.push(message.subarray(start, ends[i] ?? message.length)));
  return Buffer.concat([...pieces, Buffer.from(stuffer.end())]);
}

const bytes = fc.array(fc.constantFrom(0x0a, 0x0d, 0x2e, 0x61, 0xff), { maxLength: 40 }).map((list) => Buffer.from(list));
const anyCuts = fc.array(fc.nat(), { maxLength: 6 });

describe('DotStuffer', () => {
  it('is undone by a client, wherever the chunks end', () => {
    fc.assert(
      fc.property(bytes, anyCuts, (message, cuts) => {
        expect(received(stuff(message, cuts)).toString('latin1')).toBe(canonical(message));
      }),
      { numRuns: 3_000 },
    );
  });

  it('sends as many bytes as the size tells', () => {
    fc.assert(
      fc.property(bytes, anyCuts, (message, cuts) => {
        expect(received(stuff(message, cuts))).toHaveLength(message.length + missingLineEndBytes(message));
      }),
      { numRuns: 3_000 },
    );
  });

  it('never sends a line end that only some clients take for one', () => {
    fc.assert(
      fc.property(bytes, anyCuts, (message, cuts) => {
        expect(stuff(message, cuts).toString('latin1')).not.toMatch(/(?<!\r)\n/);
      }),
    );
  });

  it('hands on chunks that need nothing', () => {
    const chunk = Buffer.from('Subject: a\r\n\r\nno dots. here\r\n');
    expect(new DotStuffer().push(chunk)).toBe(chunk);
  });
});

describe('TopCut', () => {
  const cut = (message: string, lines: number, at: number) => {
    const top = new TopCut(lines);
    const whole = Buffer.from(message);
    const pieces = [whole.subarray(0, at), whole.subarray(at)];
    return pieces.map((piece) => (top.isDone ? '' : top.take(piece).toString())).join('');
  };

  it('gives the header, the empty line and so many lines, wherever the chunks end', () => {
    for (const lineEnd of ['\r\n', '\n']) {
      const message = ['A: b', 'C: d', '', 'one', '', 'three', ''].join(lineEnd);
      const lines = message.split(lineEnd);
      for (let count = 0; count <= 5; count++) {
        const expected = count >= 3 ? message : `${lines.slice(0, 3 + count).join(lineEnd)}${lineEnd}`;
        for (let at = 0; at <= message.length; at++) expect(cut(message, count, at)).toBe(expected);
      }
    }
  });

  it('gives all of what has no body, and of what begins with it', () => {
    expect(cut('A: b\r\nC: d\r\n', 3, 5)).toBe('A: b\r\nC: d\r\n');
    expect(cut('\r\nbody\r\nmore\r\n', 1, 1)).toBe('\r\nbody\r\n');
  });
});
