/** De-stuffing and stuffing, against slow and simple references, over every mix of CR, LF and dot and every cut into chunks. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ChunkDecoder, type ContentRules, DataDecoder } from './content-decoder.js';
import { DotStuffer } from './content-encoder.js';

interface Decoded {
  content: string;
  /** What follows the end of data. */
  rest: string;
  ended: boolean;
  bare: boolean;
}

/** Octet strings in, by the letter of RFC 5321: lines end with CRLF, a line of one dot ends, other leading dots go. */
function reference(octets: string, normalise: boolean): Decoded {
  const lines: string[] = [];
  let at = 0;
  for (;;) {
    const crlf = octets.indexOf('\r\n', at);
    if (crlf < 0) return { content: '', rest: '', ended: false, bare: false };
    const line = octets.slice(at, crlf);
    at = crlf + 2;
    if (line === '.') break;
    lines.push(`${line.startsWith('.') ? line.slice(1) : line}\r\n`);
  }
  const raw = lines.join('');
  const repaired = raw.replace(/\r\n|\r|\n/g, '\r\n');
  const bare = repaired !== raw;
  return { content: normalise ? repaired : bare ? '' : raw, rest: octets.slice(at), ended: true, bare };
}

function decode(chunks: string[], rules: ContentRules): Decoded & { chunkCount: number } {
  const decoder = new DataDecoder(rules);
  let content = '';
  let rest = '';
  let chunkCount = 0;
  for (const text of chunks) {
    const chunk = Buffer.from(text, 'latin1');
    const next = decoder.push(chunk, 0);
    if (decoder.content) {
      content += decoder.content.toString('latin1');
      chunkCount++;
    }
    if (decoder.ended) rest += text.slice(next);
    else if (next !== chunk.length) expect(next).toBe(chunk.length);
  }
  return { content: decoder.refused ? '' : content, rest, ended: decoder.ended, bare: decoder.bareLineEnd, chunkCount };
}

const asText = ({ content, rest, ended, bare }: Decoded) => JSON.stringify([content, rest, ended, bare]);

function check(octets: string, chunks: string[]) {
  for (const bareLineEnds of ['refuse', 'normalise'] as const) {
    const expected = reference(octets, bareLineEnds === 'normalise');
    const { chunkCount: _count, ...seen } = decode(chunks, { bareLineEnds, nul: 'allow' });
    // Compared as text first: a matcher for each of so many would take most of the time.
    if (!expected.ended) expect(seen.ended, JSON.stringify(chunks)).toBe(false);
    else if (asText(seen) !== asText(expected)) expect({ chunks, ...seen }).toEqual({ chunks, ...expected });
  }
}

const alphabet = ['\r', '\n', '.', 'a'];

describe('DataDecoder', () => {
  it('agrees with the reference on every string of 6 octets, at every cut in two', () => {
    const total = alphabet.length ** 6;
    for (let n = 0; n < total; n++) {
      let octets = '';
      for (let i = 0, rest = n; i < 6; i++, rest = Math.floor(rest / alphabet.length)) octets += alphabet[rest % alphabet.length];
      octets += '\r\n.\r\n';
      const cut = n % octets.length;
      check(octets, [octets.slice(0, cut), octets.slice(cut)]);
    }
  });

  it('agrees with the reference on long mixes at any cuts', () => {
    const piece = fc.constantFrom(
      '\r',
      '\n',
      '.',
      '\r\n',
      '\r\n.',
      '\n.\n',
      '\r.\r',
      'text',
      '\r\n..',
      '\n.\r\n',
      '\r\n.\n',
      '\r\n.\r',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), fc.array(fc.nat(200), { maxLength: 8 }), (parts, cuts) => {
        const octets = `${parts.join('')}\r\n.\r\nQUIT\r\n`;
        const places = [...new Set([0, ...cuts.map((cut) => cut % octets.length), octets.length])].sort((a, b) => a - b);
        check(
          octets,
          places.slice(1).map((end, index) => octets.slice(places[index], end)),
        );
      }),
      { numRuns: 2000 },
    );
  });

  it('agrees with the reference octet by octet', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...alphabet), { maxLength: 60 }), (letters) => {
        const octets = `${letters.join('')}\r\n.\r\n`;
        check(octets, [...octets]);
      }),
      { numRuns: 1000 },
    );
  });

  it('gives one piece of content per chunk, however many dots', () => {
    const octets = `${'..a\r\n'.repeat(5000)}.\r\n`;
    expect(decode([octets], { bareLineEnds: 'refuse', nul: 'refuse' })).toMatchObject({
      content: '.a\r\n'.repeat(5000),
      chunkCount: 1,
    });
  });

  it('finds a NUL, also after the start of a chunk and not beyond the end of data', () => {
    const rules: ContentRules = { bareLineEnds: 'refuse', nul: 'refuse' };
    const decoder = new DataDecoder(rules);
    decoder.push(Buffer.from('\0abc\0', 'latin1'), 1);
    expect(decoder.refused).toBe(true);
    expect(decoder.content).toBeUndefined();
    const other = new DataDecoder(rules);
    other.push(Buffer.from('a\r\n.\r\n\0', 'latin1'));
    expect(other).toMatchObject({ ended: true, refused: false });
  });
});

describe('DotStuffer', () => {
  const stuff = (chunks: string[]) => {
    const stuffer = new DotStuffer();
    const out = chunks.flatMap((chunk) => stuffer.push(Buffer.from(chunk, 'latin1')));
    return Buffer.concat([...out, stuffer.end()]).toString('latin1');
  };
  const cutAt = (octets: string, cuts: number[]) => {
    const places = [...new Set([0, ...cuts.map((cut) => cut % (octets.length + 1)), octets.length])].sort((a, b) => a - b);
    return places.slice(1).map((end, index) => octets.slice(places[index], end));
  };

  it('doubles a dot after any line end, wherever chunks are cut', () => {
    const letters = fc.array(fc.constantFrom(...alphabet), { maxLength: 100 });
    fc.assert(
      fc.property(letters, fc.array(fc.nat(100), { maxLength: 4 }), (parts, cuts) => {
        const octets = parts.join('');
        const expected = octets.replace(/(^|[\r\n])\./g, '$1..');
        const end = octets === '' || octets.endsWith('\r\n') ? '.\r\n' : '\r\n.\r\n';
        expect(stuff(cutAt(octets, cuts))).toBe(expected + end);
      }),
      { numRuns: 2000 },
    );
  });

  it('copes with a dot on every line', () => {
    const octets = '.\n.\r\n..a\r'.repeat(5000);
    expect(stuff([octets])).toBe(`${'..\n..\r\n...a\r'.repeat(5000)}\r\n.\r\n`);
  });

  it('leaves nothing that any reading of line ends could take for an end of data', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('\r', '\n', '.', '\r\n', '\0', 'a'), { maxLength: 60 }), (parts) => {
        const wire = stuff([parts.join('')]);
        expect(/(?:^|[\r\n])\.[\r\n]/.exec(wire)?.index).toBe(wire.length - (wire.length === 3 ? 3 : 4));
      }),
      { numRuns: 2000 },
    );
  });

  it('is undone by the decoder', () => {
    const line = fc.array(fc.constantFrom('.', 'a', 'é', '..', ' '), { maxLength: 8 }).map((parts) => `${parts.join('')}\r\n`);
    fc.assert(
      fc.property(fc.array(line, { maxLength: 20 }), fc.array(fc.nat(200), { maxLength: 5 }), (lines, cuts) => {
        const content = lines.join('');
        const decoded = decode(cutAt(stuff(cutAt(content, cuts)), cuts), { bareLineEnds: 'refuse', nul: 'refuse' });
        expect(decoded).toMatchObject({ content, ended: true, bare: false });
      }),
      { numRuns: 1000 },
    );
  });
});

describe('ChunkDecoder', () => {
  it('treats line ends like the reference, at any cuts', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...alphabet), { maxLength: 40 }),
        fc.array(fc.nat(40), { maxLength: 6 }),
        fc.constantFrom('refuse' as const, 'normalise' as const, 'allow' as const),
        (letters, cuts, bareLineEnds) => {
          const octets = letters.join('');
          const decoder = new ChunkDecoder({ bareLineEnds, nul: 'refuse' });
          const places = [...new Set([0, ...cuts.map((cut) => cut % (octets.length + 1)), octets.length])].sort((a, b) => a - b);
          let content = '';
          places.slice(1).forEach((end, index) => {
            const padded = Buffer.from(`\n${octets.slice(places[index], end)}\r`, 'latin1');
            decoder.push(padded, 1, padded.length - 1);
            content += decoder.content?.toString('latin1') ?? '';
          });
          content += decoder.finish()?.toString('latin1') ?? '';
          const repaired = octets.replace(/\r\n|\r|\n/g, '\r\n');
          if (bareLineEnds === 'allow') {
            expect(content).toBe(octets);
            return;
          }
          expect(decoder.bareLineEnd).toBe(repaired !== octets);
          if (bareLineEnds === 'normalise') expect(content).toBe(repaired);
          else if (decoder.refused) expect(repaired).not.toBe(octets);
          else expect(content).toBe(octets);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
