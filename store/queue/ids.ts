/**
 * Queue ids: 20 characters of base32hex ([0-9a-v]), 10 of the time in milliseconds, then 10 at random. They sort by time and need no
 * coordination.
 */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import type { QueueId } from './contract.js';

const digits = '0123456789abcdefghijklmnopqrstuv';
const randomBytesPerId = 10;

/** `value` (a non-negative integer below 2^50) as 10 base32hex digits. */
function base32(value: number): string {
  let text = '';
  let rest = value;
  for (let i = 0; i < 10; i++) {
    text = digits[rest % 32]! + text;
    rest = Math.floor(rest / 32);
  }
  return text;
}

/** The lowest id of a moment: ids made before it sort below. */
export function firstIdAt(timeMs: number): QueueId {
  return `${base32(Math.max(0, Math.floor(timeMs)))}0000000000`;
}

/** Makes ids from this clock and this randomness; random bytes are drawn in batches. */
export function createQueueIds(clock: Clock, random: Random): () => QueueId {
  let pool: Buffer = Buffer.alloc(0);
  let at = 0;
  let lastMs = -1;
  let prefix = '';
  return () => {
    const nowMs = Math.max(0, Math.floor(clock.nowMs()));
    if (nowMs !== lastMs) {
      lastMs = nowMs;
      prefix = base32(nowMs);
    }
    if (at + randomBytesPerId > pool.length) {
      pool = random.bytes(randomBytesPerId * 64);
      at = 0;
    }
    let id = prefix;
    for (let i = 0; i < randomBytesPerId; i++) id += digits[pool[at++]! & 31]!;
    return id;
  };
}

/** Whether a text has the form of a queue id. */
export function isQueueId(text: string): boolean {
  return /^[0-9a-v]{20}$/.test(text);
}
