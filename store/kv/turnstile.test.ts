import { expect, it } from 'vitest';
import type { Timer } from '../../ops/telemetry/index.js';
import { type PassOn, Turnstile } from './turnstile.js';

/** Timers that fire when they are told to. */
function manualTimers() {
  const pending = new Set<() => void>();
  const setTimer = (_delayMs: number, callback: () => void): Timer => {
    pending.add(callback);
    return { cancel: () => void pending.delete(callback) };
  };
  const fireAll = () => {
    for (const callback of [...pending]) {
      pending.delete(callback);
      callback();
    }
  };
  return { setTimer, fireAll, pending };
}

it('gives turns in the order in which they were asked for, per key, and forgets keys that nobody wants', async () => {
  const timers = manualTimers();
  const turnstile = new Turnstile(timers);
  const order: string[] = [];
  const first = (await turnstile.take('k', 10)) as PassOn;
  const others = ['a', 'b', 'c'].map(async (name) => {
    const passOn = await turnstile.take('k', 10);
    order.push(name);
    passOn!();
  });
  expect(await turnstile.take('elsewhere', 10)).toBeTypeOf('function');
  expect(order).toEqual([]);
  first();
  await Promise.all(others);
  expect(order).toEqual(['a', 'b', 'c']);
  expect(timers.pending.size).toBe(0);
  expect(await turnstile.take('k', 10)).toBeTypeOf('function');
});

it('who runs out of patience goes without, and is not given the turn later', async () => {
  const timers = manualTimers();
  const turnstile = new Turnstile(timers);
  const first = (await turnstile.take('k', 10)) as PassOn;
  const impatient = turnstile.take('k', 10);
  timers.fireAll();
  expect(await impatient).toBeUndefined();
  const patient = turnstile.take('k', 10);
  first();
  expect(await patient).toBeTypeOf('function');
});
