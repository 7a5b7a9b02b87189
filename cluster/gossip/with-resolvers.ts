/**
 * `Promise.withResolvers`, which libp2p calls and Node 20 lacks. Must be imported before anything of libp2p.
 */
interface Resolvers<T> {
  promise: Promise<T>;
  resolve(value: T | PromiseLike<T>): void;
  reject(reason?: unknown): void;
}

const promises = Promise as PromiseConstructor & { withResolvers?: <T>() => Resolvers<T> };

promises.withResolvers ??= function withResolvers<T>(this: PromiseConstructor): Resolvers<T> {
  let resolve!: Resolvers<T>['resolve'];
  let reject!: Resolvers<T>['reject'];
  const promise = new this<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
};
