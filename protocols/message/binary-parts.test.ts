import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { withoutNulParts } from './binary-parts.js';
import { decodeBody, parseMessage } from './index.js';

const message = (...pieces: (string | Buffer)[]) =>
  Buffer.concat(pieces.map((piece) => (typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece)));

describe('messages with NUL', () => {
  it('stay as they are where there is none', () => {
    const plain = message('Subject: x\r\n\r\nbody\xff\r\n');
    expect(withoutNulParts(plain)).toBe(plain);
  });

  it('have the whole body encoded, under the one field that says so', () => {
    const head = 'Content-Type: application/octet-stream\r\nContent-Transfer-Encoding:\r\n binary\r\nSubject: x\r\n\r\n';
    const encoded = withoutNulParts(message(head, '\0\xff\r\n'));
    expect(encoded.toString('latin1')).toBe(
      'Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\nSubject: x\r\n\r\nAP8NCg==\r\n',
    );
  });

  it('have those parts encoded that need it, and the others left alone', () => {
    const bytes = message(
      'Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nplain\r\n',
      '--b\r\nContent-Type: image/png\r\n\r\n\0\0\r\n',
      '--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Transfer-Encoding: 8bit\r\n\r\n1\0',
      '\r\n--b--\r\n',
    );
    const encoded = withoutNulParts(bytes);
    expect(encoded.includes(0)).toBe(false);
    const [plain, image, embedded] = parseMessage(encoded).children!;
    expect(decodeBody(encoded, plain!).toString()).toBe('plain');
    expect([...decodeBody(encoded, image!)]).toEqual([0, 0]);
    expect([...decodeBody(encoded, embedded!.message!.structure)]).toEqual([0x31, 0]);
    expect(encoded.toString('latin1')).toContain(
      '--b\r\n\r\nplain\r\n--b\r\nContent-Transfer-Encoding: base64\r\nContent-Type: image/png',
    );
  });

  it('never lose a byte of a body', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (body) => {
        const bytes = message('Content-Transfer-Encoding: binary\r\nContent-Type: application/x\r\n\r\n', Buffer.from(body));
        const encoded = withoutNulParts(bytes);
        expect(encoded.includes(0)).toBe(false);
        expect(decodeBody(encoded, parseMessage(encoded)).equals(Buffer.from(body))).toBe(true);
      }),
    );
  });
});
