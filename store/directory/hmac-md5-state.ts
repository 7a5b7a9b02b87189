/**
 * HMAC-MD5 (RFC 2104) cut in two: what of it depends on the password alone is kept, and the rest done when a challenge is answered. So CRAM-MD5 needs no stored password. The
 * machine's own MD5 can't be stopped and resumed: the block function is here, for the two or three blocks of a login.
 */
import { createHash } from 'node:crypto';

const blockBytes = 64;
const digestBytes = 16;
/** Inner and outer state, one after the other. */
export const hmacMd5StateBytes = 2 * digestBytes;
/** No honest challenge is longer. */
const maxMessageBytes = 65_536;

// RFC 1321 3.4: floor(2^32 * abs(sin(i + 1))).
const constants = Uint32Array.from({ length: 64 }, (_, index) => Math.floor(2 ** 32 * Math.abs(Math.sin(index + 1))));
const shifts = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const initialState = Buffer.from('0123456789abcdeffedcba9876543210', 'hex');

/** The state after one more block of 64 bytes (RFC 1321 3.4). */
function compress(state: Buffer, bytes: Buffer, at: number): Buffer {
  const [a0, b0, c0, d0] = [0, 4, 8, 12].map((offset) => state.readUInt32LE(offset)) as [number, number, number, number];
  let [a, b, c, d] = [a0, b0, c0, d0];
  for (let step = 0; step < 64; step++) {
    const round = step >> 4;
    let mixed: number;
    let word: number;
    if (round === 0) [mixed, word] = [(b & c) | (~b & d), step];
    else if (round === 1) [mixed, word] = [(d & b) | (~d & c), (5 * step + 1) & 15];
    else if (round === 2) [mixed, word] = [b ^ c ^ d, (3 * step + 5) & 15];
    else [mixed, word] = [c ^ (b | ~d), (7 * step) & 15];
    const sum = (a + mixed + constants[step]! + bytes.readUInt32LE(at + 4 * word)) >>> 0;
    const shift = shifts[round * 4 + (step & 3)]!;
    [a, d, c, b] = [d, c, b, (b + ((sum << shift) | (sum >>> (32 - shift)))) >>> 0];
  }
  const next = Buffer.allocUnsafe(digestBytes);
  for (const [index, value] of [a0 + a, b0 + b, c0 + c, d0 + d].entries()) next.writeUInt32LE(value >>> 0, index * 4);
  return next;
}

/** MD5 of one block that `state` stands for, and then `message`. */
function finish(state: Buffer, message: Buffer): Buffer {
  const padded = Buffer.alloc(Math.ceil((message.length + 9) / blockBytes) * blockBytes);
  message.copy(padded);
  padded[message.length] = 0x80;
  padded.writeBigUInt64LE(BigInt(blockBytes + message.length) * 8n, padded.length - 8);
  let result = state;
  for (let at = 0; at < padded.length; at += blockBytes) result = compress(result, padded, at);
  return result;
}

/** What is kept of a key (32 bytes). */
export function hmacMd5State(key: Uint8Array): Buffer {
  const short = key.length > blockBytes ? createHash('md5').update(key).digest() : key;
  const half = (pad: number) => {
    const block = Buffer.alloc(blockBytes, pad);
    for (const [index, octet] of short.entries()) block[index] = octet ^ pad;
    return compress(initialState, block, 0);
  };
  return Buffer.concat([half(0x36), half(0x5c)]);
}

/** HMAC-MD5 of a message under the key that `state` was made of. Throws RangeError for a message of more than 64 KiB. */
export function finishHmacMd5(state: Buffer, message: Buffer): Buffer {
  if (message.length > maxMessageBytes) throw new RangeError('a message of HMAC-MD5 has at most 65536 bytes here');
  return finish(state.subarray(digestBytes, hmacMd5StateBytes), finish(state.subarray(0, digestBytes), message));
}
