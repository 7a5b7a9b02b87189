/** Values that may be promises: most tests and actions have nothing to wait for, and awaiting what is no promise costs more than they do. */
import type { MaybePromise } from './contract.js';

export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return value instanceof Promise;
}

/** Whether all items hold, asked one after the other until one does not. */
export function every<T>(items: readonly T[], ask: (item: T) => MaybePromise<boolean>, start = 0): MaybePromise<boolean> {
  for (let i = start; i < items.length; i++) {
    const holds = ask(items[i]!);
    if (holds instanceof Promise) return holds.then((answer) => answer && every(items, ask, i + 1));
    if (!holds) return false;
  }
  return true;
}

/** `next` of the value: at once when it is there. */
export function after<T, U>(value: MaybePromise<T>, next: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return value instanceof Promise ? value.then(next) : next(value);
}
