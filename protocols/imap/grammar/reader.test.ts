import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { defaultGrammarLimits } from './limits.js';
import { CommandReader, type ReaderEvent } from './reader.js';

const limits = { ...defaultGrammarLimits, maxLineBytes: 200, maxLiteralBytes: 100, maxSkippedBytes: 1_000 };

type Decision = 'collect' | 'stream' | 'refuse';

/** Feeds chunks, answers literals, and writes down what came; chunks of one literal are joined. */
function feed(
  chunks: readonly Buffer[],
  decide: (event: Extract<ReaderEvent, { kind: 'literal' }>, reader: CommandReader) => Decision,
): string[] {
  const reader = new CommandReader(limits);
  const log: string[] = [];
  let streamed = '';
  for (const chunk of chunks) {
    reader.push(chunk);
    for (let event = reader.next(); event; event = reader.next()) {
      if (event.kind === 'chunk') {
        streamed += event.bytes.toString('latin1');
        continue;
      }
      if (event.kind === 'literal') {
        const decision = decide(event, reader);
        log.push(`literal ${event.sizeBytes}${event.synchronising ? '' : '+'}${event.binary ? ' binary' : ''} ${decision}`);
        if (decision === 'collect') reader.collect();
        else if (decision === 'stream') reader.stream();
        else if (reader.refuse()) log.push('refused');
      } else if (event.kind === 'chunk-end') {
        log.push(`streamed ${streamed}`);
        streamed = '';
      } else if (event.kind === 'command') {
        const { texts, literals } = event.command;
        log.push(
          `command ${JSON.stringify(texts)} ${JSON.stringify(literals.map((literal) => literal.bytes.toString('latin1')))}`,
        );
      } else if (event.kind === 'fault') {
        log.push(`fault ${event.fault} ${event.tag} ${event.fatal}`);
      } else log.push(event.kind);
    }
  }
  return log;
}

const always = (decision: Decision) => (): Decision => decision;

function chunked(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort((a, b) => a - b);
  return at.slice(1).map((end, i) => bytes.subarray(at[i], end));
}

describe('CommandReader', () => {
  it('joins lines and literals, whatever they contain', () => {
    const input = Buffer.from('a LOGIN {5}\r\na\r\n{9 {3+}\r\nb c\r\nb NOOP\r\n');
    expect(feed([input], always('collect'))).toEqual([
      'literal 5 collect',
      'literal 3+ collect',
      'command ["a LOGIN "," ",""] ["a\\r\\n{9","b c"]',
      'command ["b NOOP"] []',
    ]);
  });

  it('streams literals without keeping them', () => {
    const input = Buffer.from('a APPEND x {4+}\r\nabcd (\\Seen) ~{2}\r\n\0\0\r\n');
    expect(feed([input], always('stream'))).toEqual([
      'literal 4+ stream',
      'streamed abcd',
      'literal 2 binary stream',
      'streamed \0\0',
      'command ["a APPEND x "," (\\\\Seen) ",""] ["",""]',
    ]);
  });

  it('passes over what follows a refused non-synchronising literal, up to the end of the command', () => {
    const input = Buffer.from('a APPEND x {4+}\r\nb \r\n {3+}\r\nc\r\n tail\r\nd NOOP\r\n');
    expect(feed([input], always('refuse'))).toEqual(['literal 4+ refuse', 'skipped', 'command ["d NOOP"] []']);
  });

  it('is at the next command at once when the client waits for its literal', () => {
    expect(feed([Buffer.from('a APPEND x {4}\r\nb NOOP\r\n')], always('refuse'))).toEqual([
      'literal 4 refuse',
      'refused',
      'command ["b NOOP"] []',
    ]);
    // A waiting literal behind a skipped one: the client gets its answer there.
    expect(feed([Buffer.from('a APPEND x {4+}\r\nabcd {4}\r\nb NOOP\r\n')], always('refuse'))).toEqual([
      'literal 4+ refuse',
      'skipped',
      'command ["b NOOP"] []',
    ]);
  });

  it('ends where a literal claims more than anybody would skip', () => {
    expect(feed([Buffer.from('a X {1001+}\r\nb NOOP\r\n')], always('collect'))).toEqual(['fault bad-literal a true']);
    expect(feed([Buffer.from('a X {99999999999999999999}\r\nb NOOP\r\n')], always('collect'))).toEqual([
      'fault bad-literal a false',
      'command ["b NOOP"] []',
    ]);
  });

  it('counts all lines of a command together', () => {
    const input = Buffer.from(`a X ${'x'.repeat(150)} {1+}\r\ny${'x'.repeat(100)}\r\nb NOOP\r\n`);
    expect(feed([input], always('collect'))).toEqual([
      'literal 1+ collect',
      'fault line-too-long a false',
      'command ["b NOOP"] []',
    ]);
  });

  it('gives up on a line without end', () => {
    expect(feed([Buffer.from(`a ${'x'.repeat(10_000)}`)], always('collect'))).toEqual(['fault flood a true']);
  });

  it('gives raw lines on demand, and keeps the rest', () => {
    const reader = new CommandReader(limits);
    reader.push(Buffer.from('DO'));
    expect(reader.nextLine()).toBeUndefined();
    reader.push(Buffer.from('NE\r\nb NOOP\r\n'));
    expect(reader.nextLine()).toEqual({ kind: 'line', text: 'DONE' });
    expect(reader.next()).toMatchObject({ kind: 'command', command: { texts: ['b NOOP'] } });
  });

  it('does not care how the bytes are cut', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        'a NOOP\r\n',
        'b APPEND x {5+}\r\n12\r\n5 {3}\r\nabc\r\n',
        'c {0}\r\n\r\n',
        '\n',
        '\r\n',
        'd ~{2+}\r\n\0\n\r\n',
        'e "{4}"\r\n',
        `f ${'y'.repeat(250)}\r\n`,
      ),
      fc.string({ maxLength: 20 }),
    );
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 12 }),
        fc.array(fc.nat(400), { maxLength: 30 }),
        fc.constantFrom<Decision>('collect', 'stream', 'refuse'),
        (pieces, cuts, decision) => {
          const bytes = Buffer.from(pieces.join(''), 'latin1');
          expect(feed(chunked(Buffer.from(bytes), cuts), always(decision))).toEqual(feed([bytes], always(decision)));
        },
      ),
    );
  });

  it('never throws, and never holds more than its limits', () => {
    const noise = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 60 }),
        fc.constantFrom('{3}\r\n', '{9+}\r\n', '~{1+}\r\n', '\r\n', ' ', '{', '}').map((text) => Buffer.from(text)),
      ),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(noise, fc.infiniteStream(fc.constantFrom<Decision>('collect', 'stream', 'refuse')), (chunks, decisions) => {
        feed(
          chunks.map((chunk) => Buffer.from(chunk)),
          (event, reader) => {
            const decision = decisions.next().value as Decision;
            return decision === 'collect' && !reader.fits(event.sizeBytes) ? 'refuse' : decision;
          },
        );
      }),
    );
  });
});
