/** Values that may have to be waited for. Where nothing waits, nothing is turned into a promise: most mail passes its stages without one. */
import type { MaybePromise } from '../../../protocols/smtp/server/handler.js';

export type { MaybePromise };

export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return value instanceof Promise;
}

/** `next` of the value: at once when it is there. */
export function after<A, B>(value: MaybePromise<A>, next: (value: A) => MaybePromise<B>): MaybePromise<B> {
  return isPromise(value) ? value.then(next) : next(value);
}
