/** Starts the writer thread and speaks with it. */
import type { Worker } from 'node:worker_threads';
import { KvError } from '../contract.js';
import type { FromWriter, ToWriter, WriterSettings } from './messages.js';
import { spawnThread } from './thread.js';

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
    const worker = spawnThread('worker', 'kv-writer', settings);
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
