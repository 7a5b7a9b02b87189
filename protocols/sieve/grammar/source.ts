/** From the bytes of a script to its text: UTF-8 (RFC 5228 2.1), a byte order mark in front is dropped. */
import { isUtf8 } from 'node:buffer';
import { type Position, SieveError, type SieveLimits } from '../contract.js';

const byteOrderMark = 0xfeff;

/** @throws SieveError: too long, or not UTF-8 (with the place of the first byte that is not). */
export function decodeScript(script: Buffer | string, limits: Pick<SieveLimits, 'maxScriptBytes'>): string {
  const bytes = typeof script === 'string' ? Buffer.byteLength(script) : script.length;
  if (bytes > limits.maxScriptBytes) {
    throw new SieveError(`the script is too long: ${bytes} bytes of at most ${limits.maxScriptBytes}`, { line: 1, column: 1 });
  }
  if (typeof script !== 'string' && !isUtf8(script)) {
    throw new SieveError('this is not UTF-8', positionAtEnd(firstPart(script)));
  }
  const text = typeof script === 'string' ? script : script.toString('utf8');
  return text.charCodeAt(0) === byteOrderMark ? text.slice(1) : text;
}

/** What stands before the first byte that no UTF-8 has there. A streaming decoder refuses every prefix beyond it, and none before. */
function firstPart(script: Buffer): string {
  let [good, bad] = [0, script.length + 1];
  let text = '';
  while (bad - good > 1) {
    const middle = (good + bad) >>> 1;
    try {
      text = new TextDecoder('utf-8', { fatal: true }).decode(script.subarray(0, middle), { stream: true });
      good = middle;
    } catch {
      bad = middle;
    }
  }
  if (good === 0) text = '';
  return text;
}

function positionAtEnd(text: string): Position {
  const lines = text.split('\n');
  return { line: lines.length, column: lines[lines.length - 1]!.length + 1 };
}
