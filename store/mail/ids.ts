/** Ids of messages, mailboxes and changes, and the short hashes by which messages find their thread. */
import { hash } from 'node:crypto';
import type { Clock, Random } from '../../ops/telemetry/index.js';
import type { EmailId, MailboxId } from './contract.js';

const digits = '0123456789abcdefghijklmnopqrstuv';
const timeDigits = 10;
const randomDigits = 10;
/** Length of every EmailId and ThreadId. */
export const emailIdLength = timeDigits + randomDigits;
/** Bytes of a reference hash: two in a billion for an account with a hundred thousand references to meet by chance. */
export const referenceHashBytes = 8;

function randomText(random: Random, length: number): string {
  const bytes = random.bytes(length);
  let text = '';
  for (let at = 0; at < length; at++) text += digits[bytes[at]! & 31];
  return text;
}

/** 10 digits of time (base 32, milliseconds), so that messages of one time lie together, and 50 random bits. */
export function newEmailId(clock: Clock, random: Random): EmailId {
  return Math.max(0, Math.floor(clock.nowMs())).toString(32).padStart(timeDigits, '0') + randomText(random, randomDigits);
}

/** Twelve characters, the first one a letter. */
export function newMailboxId(random: Random): MailboxId {
  const first = digits[10 + (random.bytes(1)[0]! % 22)]!;
  return first + randomText(random, 11);
}

/** By this a change finds out, on a second attempt, that the first one was committed after all. */
export function newChangeToken(random: Random): Buffer {
  return random.bytes(8);
}

/** The short hash under which a message id is looked up. */
export function referenceHash(messageId: string): Buffer {
  return hash('sha256', messageId, 'buffer').subarray(0, referenceHashBytes);
}
