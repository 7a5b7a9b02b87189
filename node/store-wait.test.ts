import { describe, expect, it } from 'vitest';
import { VirtualTime } from '../cluster/testing/virtual-time.js';
import type { Logger } from '../ops/telemetry/index.js';
import { KvError } from '../store/kv/index.js';
import { StartError } from './start-error.js';
import { untilReachable } from './store-wait.js';

const away = (message = 'nobody listens there') =>
  new StartError(message, { cause: new KvError('unavailable', message, 'outage') });

/** An operator who reads the log. */
function reader() {
  const lines: { text: string; facts: Record<string, unknown> }[] = [];
  const write = (facts: Record<string, unknown>, text: string) => void lines.push({ facts, text });
  return { lines, logger: { warn: write, info: write } as unknown as Logger };
}

function wait(open: () => Promise<string>, options: { timeoutMs?: number; signal?: AbortSignal } = {}) {
  const time = new VirtualTime();
  const { lines, logger } = reader();
  const ending = untilReachable(open, { timeoutMs: 120_000, clock: time.clock(), logger, ...options }).then(
    (value) => ({ value, error: undefined }),
    (error: Error) => ({ value: undefined, error }),
  );
  return { time, lines, ending };
}

describe('a store that can not be reached when a node starts', () => {
  it('is waited for, and the log says so at once and every ten seconds', async () => {
    let attempts = 0;
    const { time, lines, ending } = wait(async () => {
      if (++attempts < 20) throw away();
      return 'open';
    });
    await time.advance(100);
    expect(lines).toMatchObject([{ text: expect.stringContaining('waits for it'), facts: { reason: 'nobody listens there' } }]);
    await time.advance(119_000);
    expect((await ending).value).toBe('open');
    const [last] = lines.slice(-1);
    expect(last!.text).toBe('the store answers');
    expect(lines.length - 1).toBe(1 + Math.floor(Number(last!.facts['waitedSeconds']) / 10));
  });

  it('is mentioned after a second, also when no attempt has come to an end', async () => {
    const { time, lines, ending } = wait(() => new Promise(() => undefined), { signal: new AbortController().signal });
    await time.advance(31_500);
    expect(lines.map(({ facts }) => facts['givenUpInSeconds'])).toEqual([119, 109, 99, 89]);
    void ending;
  });

  it('is given up in one sentence when the time is over', async () => {
    const { time, ending } = wait(() => Promise.reject(away()), { timeoutMs: 30_000 });
    await time.advance(40_000);
    const { error } = await ending;
    expect(error).toBeInstanceOf(StartError);
    expect(error!.message).toMatch(
      /^the store could not be reached for 30 s \(store\.startTimeoutSeconds\): nobody listens there$/,
    );
  });

  it.each([
    ['a wrong password', new KvError('unavailable', 'x', 'outage', { cause: { code: '28P01' } })],
    ['a database that there is not', new KvError('unavailable', 'x', 'outage', { cause: { code: '3D000' } })],
    ['missing rights', new KvError('unavailable', 'x', 'outage', { cause: { code: '42501' } })],
    ['a library that does not fit', new KvError('unavailable', 'x', 'io')],
    ['a wrong key', new StartError('x')],
    ['a defect', new TypeError('x')],
  ])('is not waited for because of %s', async (_what, error) => {
    const failure = error instanceof KvError ? new StartError(error.message, { cause: error }) : error;
    const { lines, ending } = wait(() => Promise.reject(failure));
    expect((await ending).error).toBe(failure);
    expect(lines).toEqual([]);
  });

  it('is not waited for where nobody wants that', async () => {
    const { ending } = wait(() => Promise.reject(away('gone')), { timeoutMs: 0 });
    expect((await ending).error!.message).toBe('gone');
  });

  it('is no more waited for when the node is told to stop, between two attempts or within one', async () => {
    for (const open of [() => Promise.reject(away()), () => new Promise<string>(() => undefined)]) {
      const stopping = new AbortController();
      const { time, ending } = wait(open, { signal: stopping.signal });
      await time.advance(5_000);
      stopping.abort(new Error('told to stop'));
      expect((await ending).error!.message).toBe('told to stop');
    }
  });
});
