/** Content that is handed over as a whole: on the wire it is what it would be in pieces, and it is never completed when it is not whole. */
import { describe, expect, it } from 'vitest';
import { startTestServer } from '../testing/server.js';
import { SmtpClient } from './client.js';
import { bodyOf, message, options, peer, sendTo, withPeer } from './test-peers.js';

const whole = (content: string) => bodyOf(content, { read: async () => Buffer.from(content, 'latin1') });

/** Dots at line beginnings in every reader's sense, contents without an end of line, and sizes on both sides of one write. */
const contents = [
  '',
  'x',
  '.',
  '.\r\n',
  '..\r\n.',
  'a\r\n.\r\nb\r\n',
  'a\n.\nb\r.\rc',
  'last\r',
  'line of text\r\n'.repeat(857),
  'line of text\r\n'.repeat(858),
  '.dots\r\n'.repeat(8_000),
];

describe('content as a whole', () => {
  it.each([[[]], [['PIPELINING']]])('is by DATA what it is in pieces, to a peer with %j', (extensions) =>
    withPeer(peer(extensions), async (port, lines) => {
      for (const content of contents) {
        lines.length = 0;
        expect((await sendTo(port, message(content))).recipients[0]).toMatchObject({ outcome: 'delivered' });
        const inPieces = lines.slice();
        lines.length = 0;
        expect((await sendTo(port, message('', { body: whole(content) }))).recipients[0]).toMatchObject({ outcome: 'delivered' });
        expect(lines).toEqual(inPieces);
      }
    }),
  );

  it('arrives octet by octet, by BDAT, several messages in one connection', async () => {
    const server = await startTestServer({});
    try {
      const client = await SmtpClient.connect(options(server.port));
      const sane = contents.filter((content) => !/(?<!\r)\n|\r(?!\n)/.test(content));
      expect(sane.length).toBeGreaterThan(6);
      for (const content of sane) {
        expect((await client.send(message('', { body: whole(content) }))).recipients[0]).toMatchObject({ outcome: 'delivered' });
        expect((await client.send(message(content))).recipients[0]).toMatchObject({ outcome: 'delivered' });
        const [asWhole, inPieces] = server.handler.messages.splice(0);
        expect(asWhole!.content).toEqual(inPieces!.content);
      }
      await client.quit();
    } finally {
      await server.close();
    }
  });

  it.each(['DATA', 'BDAT'])(
    'is never completed when it can not be read, has another size, or may not be sent any more, by %s',
    (verb) =>
      withPeer(peer(verb === 'BDAT' ? ['CHUNKING', 'PIPELINING'] : ['PIPELINING']), async (port, lines) => {
        const bodies = [
          { ...whole('1234'), read: () => Promise.reject(new Error('the disk broke')) },
          { ...whole('1234'), sizeBytes: 3 },
          { ...whole('1234'), sizeBytes: 5 },
          { ...whole('1234'), mayComplete: () => false },
          { ...whole('line of text\r\n'.repeat(4_000)), mayComplete: () => false },
        ];
        for (const body of bodies) {
          expect(await sendTo(port, message('', { body }))).toMatchObject({
            reusable: false,
            recipients: [{ outcome: 'temporary', code: 0, enhanced: '4.3.0' }],
          });
        }
        expect(lines).not.toContain('.');
        expect(lines.filter((line) => line.includes('LAST'))).toEqual([]);
      }),
  );

  it('is not sent to a peer that has spoken before it was asked', () =>
    withPeer(peer(['PIPELINING'], { DATA: '354 go\r\n451 4.3.0 changed my mind\r\n' }), async (port, lines) => {
      const body = whole('x');
      const read = async () => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        return Buffer.from('x');
      };
      const result = await sendTo(port, message('', { body: { ...body, read } }));
      expect(result.recipients[0]).toMatchObject({ outcome: 'temporary', code: 451, stage: 'data' });
      expect(lines).not.toContain('.');
    }));
});

describe('a connection', () => {
  it('outlives the signal that it was opened under', async () => {
    const server = await startTestServer({});
    try {
      const control = new AbortController();
      const client = await SmtpClient.connect(options(server.port, { signal: control.signal }));
      control.abort();
      expect(client.usable).toBe(true);
      expect((await client.send(message('x'))).recipients[0]).toMatchObject({ outcome: 'delivered' });
      await client.quit();
    } finally {
      await server.close();
    }
  });

  it('gives each wait its own time although they share a timer', () =>
    withPeer(peer(['PIPELINING'], { '.': '' }), async (port) => {
      const timeouts = {
        greetingMs: 100,
        commandMs: 100,
        mailMs: 100,
        rcptMs: 100,
        dataInitiationMs: 100,
        dataTerminationMs: 350,
      };
      const client = await SmtpClient.connect(options(port, { timeouts }));
      const slow = { ...whole('x'), read: () => new Promise<Buffer>((resolve) => setTimeout(resolve, 150, Buffer.from('x'))) };
      const before = performance.now();
      const result = await client.send(message('', { body: slow }));
      expect(result.recipients[0]).toMatchObject({
        outcome: 'unknown',
        stage: 'end-of-data',
        text: expect.stringContaining('Timeout'),
      });
      // Not that of an earlier wait, which was over while nobody waited.
      expect(performance.now() - before).toBeGreaterThan(450);
    }));
});
