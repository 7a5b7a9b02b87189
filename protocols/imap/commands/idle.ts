/**
 * IDLE (RFC 9051 6.3.13): tells news as they come, and a sign of life when nothing comes (TRAPS 31), until DONE.
 */
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import { type NewsOptions, tellNews } from '../news.js';
import { ConnectionClosed } from '../output.js';
import { IdlePush } from '../pushes.js';
import { bad, ok, type Reply } from '../replies.js';

/** Pause before a store that failed is asked for news again. */
const retryMs = 5_000;

export const idle: Command = {
  name: 'IDLE',
  states: loggedIn,
  async run(context, cursor) {
    cursor.end();
    context.output.write('+ idling\r\n');
    const onNotice = context.onNotice;
    const push = new IdlePush(context);
    context.onNotice = push.notice;
    try {
      await tellNews(context, { ...idleNews, looks: true });
      return await waitForDone(context, push);
    } finally {
      push.end();
      context.onNotice = onNotice;
    }
  },
};

/** EXPUNGE may come at any time here. */
const idleNews: NewsOptions = { looks: false, expunges: true };

async function waitForDone(context: SessionContext, push: IdlePush): Promise<Reply> {
  const { input, output, services } = context;
  const { clock } = services;
  for (;;) {
    const event = input.reader.nextLine();
    if (event) {
      // A line that is too long is no DONE, and no command that could be answered.
      if (event.kind !== 'line') throw new ConnectionClosed();
      return event.text.trim().toUpperCase() === 'DONE' ? ok('IDLE completed') : bad('Expected DONE');
    }
    if (context.isDraining) throw new ConnectionClosed();
    output.flush();
    const ready = output.ready();
    if (ready) {
      await ready;
      // What has come in meanwhile would wake nobody any more.
      continue;
    }
    if (clock.monotonicMs() >= push.dueMs) {
      push.lastToldMs = clock.monotonicMs();
      context.untagged('OK Still here');
      // Also the moment to find what no notice told (TRAPS 18).
      await tellNews(context, { ...idleNews, looks: true });
      continue;
    }
    if (context.hasNotice) {
      if (await tellNews(context, idleNews)) push.lastToldMs = clock.monotonicMs();
      // Still set: the store is unavailable. Asked again a little later, unless the client speaks first.
      if (context.hasNotice && (await input.wait(retryMs)) === 'ended') throw new ConnectionClosed();
      continue;
    }
    // Ended by bytes, by news, and when a sign of life is due.
    if ((await input.wait()) === 'ended') throw new ConnectionClosed();
  }
}
