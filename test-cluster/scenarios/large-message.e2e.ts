/** A message of 50 MB goes in and comes out whole, and the node stays small. */
import { expect, it } from 'vitest';
import { run } from '../bench/memory.js';

const limitMib = 150;

it(`carries 50 MB with less than ${limitMib} MiB above an idle node of less than ${limitMib} MiB`, async () => {
  const result = (await run()) as { idleMib: number; aboveIdleMib: number; intact: boolean };
  process.stderr.write(`idle ${result.idleMib} MiB, 50 MB in and out: ${result.aboveIdleMib} MiB above\n`);
  expect(result.intact).toBe(true);
  expect(result.idleMib).toBeLessThan(limitMib);
  expect(result.aboveIdleMib).toBeLessThan(limitMib);
});
