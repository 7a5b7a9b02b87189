/** Starts the writer thread, from the compiled file or, in a source tree, through tsx, and speaks with it. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { KvError } from '../contract.js';
import type { FromWriter, ToWriter, WriterSettings } from './messages.js';

export interface WriterEvents {
  onMessage(message: FromWriter): void;
  /** The thread ended without having been told to. */
  onLost(error: Error): void;
}

export class WriterThread {
  readonly #worker: Worker;
  #lost: Error | undefined;

  private constructor(worker: Worker) {
    this.#worker = worker;
  }

  /** Resolves when the database is open, with the version it stands at. Throws `unavailable`. */
  static async start(settings: WriterSettings, events: WriterEvents): Promise<{ thread: WriterThread; version: number }> {
    const worker = spawn(settings);
    const thread = new WriterThread(worker);
    const version = await new Promise<number>((resolve, reject) => {
      let ready = false;
      const lost = (error: Error) => {
        if (thread.#lost) return;
        thread.#lost = error;
        if (ready) events.onLost(error);
        else
          reject(new KvError('unavailable', `the store's writer thread did not start: ${error.message}`, 'io', { cause: error }));
      };
      worker.on('error', lost);
      worker.on('exit', () => lost(new Error("the store's writer thread ended")));
      worker.on('message', (message: FromWriter) => {
        if (ready) return events.onMessage(message);
        if (message.type === 'ready') {
          ready = true;
          resolve(message.version);
        } else if (message.type === 'start-failed') {
          const reason = message.kind === 'no-space' ? 'no-space' : 'io';
          thread.#lost = new Error(message.message);
          reject(new KvError('unavailable', `${settings.file} can't be opened: ${message.message}`, reason));
        }
      });
    });
    worker.unref();
    return { thread, version };
  }

  /** Sends a batch. The process stays alive until `idle`. */
  commit(version: number, buffer: ArrayBuffer, length: number): void {
    this.#worker.ref();
    this.#send({ type: 'commit', version, buffer, length }, [buffer]);
  }

  /** Nothing is on its way: an open store alone does not keep the process running. */
  idle(): void {
    this.#worker.unref();
  }

  /** Lets the thread empty its log and end. */
  async close(): Promise<void> {
    if (this.#lost) return;
    this.#lost = new Error('closed');
    this.#worker.ref();
    const ended = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()));
    this.#send({ type: 'close' }, []);
    await ended;
  }

  #send(message: ToWriter, transfer: ArrayBuffer[]): void {
    this.#worker.postMessage(message, transfer);
  }
}

function spawn(settings: WriterSettings): Worker {
  const compiled = new URL('./worker.js', import.meta.url);
  const options = { workerData: settings, execArgv: [], name: 'kv-writer' };
  if (existsSync(fileURLToPath(compiled))) return new Worker(compiled, options);
  // A source tree (tests, tsx): a thread does not inherit the loader, so it registers one before it imports the TypeScript file.
  const loader = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const source = JSON.stringify(new URL('./worker.ts', import.meta.url).href);
  const bootstrap = `import(${loader}).then((tsx) => { tsx.register(); return import(${source}); })`;
  return new Worker(bootstrap, { ...options, eval: true });
}
