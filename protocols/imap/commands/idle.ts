/**
 * IDLE (RFC 9051 6.3.13): tells news as they come, and a sign of life when nothing comes (TRAPS 31), until DONE.
 */
import { KvError } from '../../../store/kv/contract.js';
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import { ConnectionClosed } from '../output.js';
import { bad, ok, type Reply } from '../replies.js';

/** Pause before a store that failed is asked for news again. */
const retryMs = 5_000;

export const idle: Command = {
  name: 'IDLE',
  states: loggedIn,
  async run(context, cursor) {
    cursor.end();
    context.output.write('+ idling\r\n');
    context.onNotice = () => context.input.wake();
    try {
      await tellNews(context);
      return await waitForDone(context);
    } finally {
      context.onNotice = undefined;
    }
  },
};

/** Whether something was told. A store that can't be read now is asked again soon; the client need not know. */
async function tellNews(context: SessionContext): Promise<boolean> {
  try {
    await context.refresh();
  } catch (error) {
    if (!(error instanceof KvError)) throw error;
    context.logger.warn({ err: error }, 'no news in IDLE: the store is unavailable');
    return false;
  }
  return context.announce(true);
}

async function waitForDone(context: SessionContext): Promise<Reply> {
  const { input, output, services } = context;
  const { clock, limits } = services;
  let lastSentMs = clock.monotonicMs();
  for (;;) {
    const event = input.reader.nextLine();
    if (event) {
      // A line that is too long is no DONE, and no command that could be answered.
      if (event.kind !== 'line') throw new ConnectionClosed();
      return event.text.trim().toUpperCase() === 'DONE' ? ok('IDLE completed') : bad('Expected DONE');
    }
    if (context.isDraining) throw new ConnectionClosed();
    output.flush();
    await output.ready();
    const quietMs = clock.monotonicMs() - lastSentMs;
    if (quietMs >= limits.keepAliveMs) {
      lastSentMs = clock.monotonicMs();
      context.untagged('OK Still here');
      // Also the moment to find what no notice told (TRAPS 18).
      await tellNews(context);
      continue;
    }
    if (context.hasNotice) {
      if (await tellNews(context)) lastSentMs = clock.monotonicMs();
      // Still set: the store is unavailable. Asked again a little later, unless the client speaks first.
      if (context.hasNotice && (await input.wait(retryMs)) === 'ended') throw new ConnectionClosed();
      continue;
    }
    if ((await input.wait(limits.keepAliveMs - quietMs)) === 'ended') throw new ConnectionClosed();
  }
}
