import { describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock } from '../../ops/telemetry/index.js';
import { signalHandler } from './signals.js';

function handlerAt(isInTerminal = false) {
  let nowMs = 5_000;
  const done: string[] = [];
  const clock: Clock = { ...systemClock, monotonicMs: () => nowMs };
  const onSignal = signalHandler({
    ...{ logger: silentLogger, clock, isInTerminal },
    stop: () => done.push('stop'),
    exit: (code) => done.push(`exit ${code}`),
  });
  return { done, onSignal, pass: (ms: number) => (nowMs += ms) };
}

describe('signals', () => {
  it('begin the drain; the same wish passed on by npm does not cut it short', () => {
    const { done, onSignal, pass } = handlerAt();
    onSignal('SIGINT');
    onSignal('SIGINT');
    pass(999);
    onSignal('SIGTERM');
    expect(done).toEqual(['stop']);
  });

  it('end at once when they come again later', () => {
    const { done, onSignal, pass } = handlerAt();
    onSignal('SIGTERM');
    pass(1_000);
    onSignal('SIGINT');
    expect(done).toEqual(['stop', 'exit 1']);
  });

  it('stop a node whose terminal has gone; elsewhere SIGHUP means nothing', () => {
    const service = handlerAt();
    service.onSignal('SIGHUP');
    expect(service.done).toEqual([]);
    const terminal = handlerAt(true);
    terminal.onSignal('SIGHUP');
    expect(terminal.done).toEqual(['stop']);
  });
});
