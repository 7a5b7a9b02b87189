import { describe, expect, it } from 'vitest';
import { type DrainableSession, OpenSessions } from './sessions.js';

function session(isPolite: boolean) {
  let end!: () => void;
  const over = new Promise<void>((resolve) => {
    end = resolve;
  });
  const told: string[] = [];
  const made: DrainableSession = {
    drain() {
      told.push('drain');
      if (isPolite) end();
      return over;
    },
    stop() {
      told.push('stop');
      end();
    },
  };
  return { made, over, end, told };
}

describe('open sessions', () => {
  it('are kept until they are over, however they end', async () => {
    const sessions = new OpenSessions();
    const one = session(true);
    sessions.add(one.made, one.over);
    const failing = Promise.reject(new Error('broken'));
    sessions.add(session(true).made, failing);
    expect(sessions.size).toBe(2);
    one.end();
    await Promise.allSettled([one.over, failing]);
    expect(sessions.size).toBe(0);
  });

  it('are asked first; those that do not end are stopped, and only those', async () => {
    const sessions = new OpenSessions();
    const polite = session(true);
    const stubborn = session(false);
    for (const { made, over } of [polite, stubborn]) sessions.add(made, over);
    const drained = sessions.drain();
    await polite.over;
    expect(sessions.size).toBe(1);
    await sessions.stop();
    await drained;
    expect([polite.told, stubborn.told]).toEqual([['drain'], ['drain', 'stop', 'drain']]);
    expect(sessions.size).toBe(0);
  });
});
