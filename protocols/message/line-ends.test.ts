import { describe, expect, it } from 'vitest';
import { missingLineEndBytes, summarizeWithin } from './index.js';

describe('missing line ends', () => {
  it.each([
    ['', 0],
    ['\r\n', 0],
    ['Subject: x\r\n\r\nline\r\n', 0],
    ['Subject: x\n\nline\n', 3],
    ['\n', 1],
    ['\r\n\n', 1],
    ['Subject: x\r\n\r\nno end', 2],
    ['Subject: x\r\n\r\nhalf an end\r', 1],
    ['a\rb\r\n', 0],
    ['a\r\r\n', 0],
  ])('%j lacks %i bytes', (text, bytes) => {
    expect(missingLineEndBytes(Buffer.from(text))).toBe(bytes);
    expect(summarizeWithin(Buffer.from(text), 90_000).missingLineEndBytes).toBe(bytes);
  });
});
