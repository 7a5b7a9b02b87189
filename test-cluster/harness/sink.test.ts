import { describe, expect, it } from 'vitest';
import { Sink, type SinkManners } from './sink.js';
import { SmtpDialog, tokenMessage } from './smtp-load.js';

const gentle: SinkManners = {
  ...{ dropped: 0, deferredAfterDot: 0, deferredRecipient: 0, slow: 0, holdMs: 0, slowMs: 0, slowStart: 0, startMs: 0 },
};

async function withSink(manners: Partial<SinkManners>, use: (sink: Sink, dialog: () => Promise<SmtpDialog>) => Promise<void>) {
  let nowMs = 0;
  const sink = await Sink.start({
    host: '127.0.0.1',
    random: () => 0.5,
    nowMs: () => ++nowMs,
    manners: { ...gentle, ...manners },
  });
  const dialogs: SmtpDialog[] = [];
  try {
    await use(sink, async () => {
      const dialog = await SmtpDialog.connect(sink.port);
      dialogs.push(dialog);
      return dialog;
    });
  } finally {
    for (const dialog of dialogs) dialog.close();
    await sink.stop();
  }
}

const to = ['a@outside.test', 'b@outside.test'];

describe('the server outside', () => {
  it('writes down one copy for each recipient, with who brought it and when it was told so', async () => {
    await withSink({}, async (sink, connect) => {
      const dialog = await connect();
      await dialog.send('x@client.test', to, tokenMessage('one'));
      await dialog.send('x@client.test', ['a@outside.test'], tokenMessage('two'));
      expect(sink.copies).toEqual([
        { token: 'one', recipient: 'a@outside.test', from: 'client.test', dotMs: 1, answeredMs: 2 },
        { token: 'one', recipient: 'b@outside.test', from: 'client.test', dotMs: 1, answeredMs: 3 },
        { token: 'two', recipient: 'a@outside.test', from: 'client.test', dotMs: 4, answeredMs: 5 },
      ]);
      expect(sink.disturbed.size).toBe(0);
    });
  });

  it('hangs up after the final dot, having taken the message; not for ever', async () => {
    await withSink({ dropped: 1 }, async (sink, connect) => {
      for (let attempt = 0; attempt < 2; attempt++)
        await expect((await connect()).send('x@client.test', ['a@outside.test'], tokenMessage('one'))).rejects.toThrow(/closed/);
      await (await connect()).send('x@client.test', ['a@outside.test'], tokenMessage('one'));
      expect(sink.copies.map(({ isDropped, answeredMs }) => [isDropped ?? false, answeredMs !== undefined])).toEqual([
        [true, false],
        [true, false],
        [false, true],
      ]);
      expect([...sink.disturbed]).toEqual(['one']);
    });
  });

  it('says "later", and has not taken the message then', async () => {
    await withSink({ deferredAfterDot: 1 }, async (sink, connect) => {
      const dialog = await connect();
      await expect(dialog.send('x@client.test', to, tokenMessage('one'))).rejects.toThrow(/451/);
      expect(sink.copies).toEqual([]);
      expect([...sink.disturbed]).toEqual(['one']);
    });
    await withSink({ deferredRecipient: 1 }, async (sink, connect) => {
      const dialog = await connect();
      await expect(dialog.send('x@client.test', to, tokenMessage('one'))).rejects.toThrow(/450/);
      expect([sink.copies, [...sink.disturbed]]).toEqual([[], ['a@outside.test']]);
    });
  });
});
