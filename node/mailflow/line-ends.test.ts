/** What comes by BINARYMIME (RFC 3030) may have lines that do not end in CRLF: both ways into a mailbox count what they lack, for POP3. */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { afterEach, expect, it } from 'vitest';
import { openMemoryStore } from '../../store/kv/index.js';
import { startTestNode, type TestNode } from './testing/node.js';

const opened: TestNode[] = [];
afterEach(async () => {
  for (const node of opened.splice(0)) await node.close();
});

/** Sends one message by BDAT; answers the reply to it. */
async function postBinary(port: number, to: string, message: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const reply = async (): Promise<string> => {
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error('the connection was closed');
      if (/^\d{3} /.test(value)) return value;
    }
  };
  try {
    await reply();
    for (const line of ['EHLO client.remote.test', 'MAIL FROM:<sender@remote.test> BODY=BINARYMIME', `RCPT TO:<${to}>`]) {
      socket.write(`${line}\r\n`);
      expect(await reply()).toMatch(/^250 /);
    }
    socket.write(`BDAT ${message.length} LAST\r\n${message}`);
    return await reply();
  } finally {
    socket.destroy();
  }
}

it.each([true, false])('a message lacks line ends in the mailbox as it did on its way there (direct: %s)', async (isDirect) => {
  const node = await startTestNode({ kv: openMemoryStore(), isDirect, isRunning: !isDirect });
  opened.push(node);
  if (isDirect) await node.membership.join();
  const alice = await node.account('alice@example.test');
  const { port } = await node.listen();
  for (const text of ['Subject: bare\r\n\r\none\ntwo\nno end', 'Subject: whole\r\n\r\none\r\n'])
    expect(await postBinary(port, 'alice@example.test', text)).toMatch(/^250 /);
  if (!isDirect) await node.settled();
  expect(await node.mailbox(alice)).toHaveLength(2);
  expect(await node.mail.missingLineEnds(alice, { limit: 10 })).toEqual([
    { emailId: expect.any(String), missingLineEndBytes: 4 },
  ]);
  expect(await node.mail.recount(alice)).toEqual({ differences: [] });
});
