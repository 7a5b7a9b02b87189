/** Small work for very many sessions, in slices between which everybody else gets a turn. */
import type { Clock } from '../../ops/telemetry/index.js';

/** A slice's length; what costs more than it seems here, because it goes on in microtasks, is bounded by the number. */
const sliceMs = 5;
const maxPerSlice = 128;
/** Looking at the clock costs something too. */
const itemsPerLook = 16;

/** Calls `act` for each item in order. It must not throw. What is deleted from a Set or Map on the way is left out. */
export async function inTurns<T>(items: Iterable<T>, clock: Pick<Clock, 'monotonicMs'>, act: (item: T) => void): Promise<void> {
  let endMs = clock.monotonicMs() + sliceMs;
  let count = 0;
  for (const item of items) {
    act(item);
    if (++count % itemsPerLook > 0 || (count < maxPerSlice && clock.monotonicMs() < endMs)) continue;
    await new Promise((resolve) => setImmediate(resolve));
    endMs = clock.monotonicMs() + sliceMs;
    count = 0;
  }
}
