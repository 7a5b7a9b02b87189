/** Lookups that trust the generation for a moment: own changes count at once, others' when the moment is over. */
import { expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../kv/index.js';
import { createDirectory } from './index.js';

it('answers by the generation of the last moment, and by own changes at once', async () => {
  let nowMs = 1_000;
  const clock: Clock = { ...systemClock, monotonicMs: () => nowMs };
  const kv = openMemoryStore();
  let reads = 0;
  const counting = new Proxy(kv, {
    get(target, name) {
      if (name === 'read') reads++;
      const value = Reflect.get(target, name) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const options = { clock, random: systemRandom, logger: silentLogger };
  const near = createDirectory({ ...options, kv: counting, lookupFreshMs: 50 });
  const far = createDirectory({ ...options, kv });
  await near.createDomain('a.test');
  await near.createPrincipal({ kind: 'account', address: 'x@a.test' });
  expect((await near.resolve('x@a.test')).kind).toBe('local');
  await near.resolve('x@a.test');

  reads = 0;
  for (let index = 0; index < 10; index++) await near.resolve('x@a.test');
  expect(reads).toBe(0);

  await far.updatePrincipal('x@a.test', { isEnabled: false });
  nowMs += 51;
  expect((await near.resolve('x@a.test')).kind).toBe('disabled');

  await near.updatePrincipal('x@a.test', { isEnabled: true });
  expect((await near.resolve('x@a.test')).kind).toBe('local');
});
