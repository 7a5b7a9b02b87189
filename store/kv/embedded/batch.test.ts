import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BatchEncoder, type BatchTarget, decodeBatch } from './batch.js';
import { failureKind } from './sqlite.js';

const text = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString('latin1'));
const operation = fc.oneof(
  fc.tuple(fc.constant('put' as const), text, fc.uint8Array({ maxLength: 40_000 })),
  fc.tuple(fc.constant('clear' as const), text),
  fc.tuple(fc.constant('clearRange' as const), text, text),
  fc.tuple(fc.constantFrom('add' as const, 'max' as const, 'min' as const), text, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
);

it('a batch comes out as it went in, also when its buffer has to grow and is used again', () => {
  let recycled: ArrayBuffer | undefined;
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 30 }), (operations) => {
      const encoder = new BatchEncoder(recycled);
      for (const [kind, first, second] of operations) {
        if (kind === 'put') encoder.put(first, Buffer.from(second as Uint8Array));
        else if (kind === 'clear') encoder.clear(first);
        else if (kind === 'clearRange') encoder.clearRange(first, second as string);
        else encoder.atomic(kind, first, second as bigint);
        // What a failed transaction has added is taken back.
        const mark = encoder.length;
        encoder.put('taken back', Buffer.alloc(100));
        encoder.truncate(mark);
      }
      const decoded: unknown[] = [];
      const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
      const target: BatchTarget = {
        put: (key, value) => decoded.push(['put', latin1(key), Uint8Array.from(value)]),
        clear: (key) => decoded.push(['clear', latin1(key)]),
        clearRange: (begin, end) => decoded.push(['clearRange', latin1(begin), latin1(end)]),
        atomic: (kind, key, operand) => decoded.push([kind, latin1(key), operand]),
      };
      const { buffer, length } = encoder.take();
      decodeBatch(buffer, length, target);
      expect(decoded).toEqual(operations.map(([kind, ...rest]) => [kind, ...rest]));
      recycled = buffer;
    }),
    { numRuns: 200 },
  );
});

it('tells a full disk, a failed write and a commit of unknown outcome apart', () => {
  const sqlite = (errcode: number) => Object.assign(new Error('x'), { errcode });
  const file = '/proc/self/none';
  expect(failureKind(sqlite(13), false, file)).toBe('no-space');
  expect(failureKind(sqlite(13), true, file)).toBe('no-space');
  // SQLITE_IOERR_FSYNC at COMMIT: the frames are written, perhaps on the disk.
  expect(failureKind(sqlite(1034), true, file)).toBe('unknown');
  expect(failureKind(sqlite(778), false, process.cwd())).toBe('io');
  expect(failureKind(new Error('not from SQLite'), false, file)).toBe('io');
});
